//! What differences are called, and what evidence comes to, in words.

use crate::{
    cli::units::{p_value, shortened},
    runs::{
        compare::{Difference, Verdict, What},
        evidence::{Evidence, Side},
    },
};

pub(super) fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Equal => "=",
        Verdict::Better => "better",
        Verdict::Worse => "worse",
        Verdict::Changed | Verdict::Unknown => "",
    }
}

/// `lora.rank`, `input train.reviews (data/x.jsonl)`, `commit`.
pub(super) fn subject(difference: &Difference) -> String {
    let dotted = |separator: &str| {
        let parts = [difference.stage.as_deref().unwrap_or_default(), &difference.name];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(separator)
    };
    match difference.what {
        What::Parameter => dotted("."),
        What::Device => format!("device of {}", shortened(&difference.name, 40)),
        what if difference.stage.is_none() => what.words().into(),
        What::Source => format!("{} takes", dotted(".")),
        what => format!("{} {}", what.words(), dotted(".")),
    }
}

/// `eval.lora: run_15 is better: +0.90 points (95 % 0.30 … 1.50), p = 0.003, on 25,000 reviews`.
pub(super) fn finding(evidence: &Evidence, of_several: bool) -> String {
    let about = match evidence.method.as_str() {
        "" => evidence.stage.clone(),
        method => format!("{}.{method}", evidence.stage),
    };
    // A winner is told what it gained, whichever of the two it is.
    let (said, sign) = match evidence.better {
        Some(Side::A) => (format!("{} is better than {}", evidence.a, evidence.b), -1.0),
        Some(Side::B) => (format!("{} is better than {}", evidence.b, evidence.a), 1.0),
        None => (format!("no difference shown, {} less {}", evidence.b, evidence.a), 1.0),
    };
    let (low, high) = match evidence.better {
        Some(Side::A) => (-evidence.high, -evidence.low),
        _ => (evidence.low, evidence.high),
    };
    let corrected =
        if of_several { format!(", corrected {}", p_value(evidence.holm_p)) } else { String::new() };
    format!(
        "{about}: {said}: {} points (95 % {} … {}), p {}{corrected}, on {} reviews",
        points(sign * evidence.difference),
        points(low),
        points(high),
        equals(evidence.mcnemar_exact_p),
        thousands(evidence.items),
    )
}

/// A difference of shares in points: `+0.90`.
pub(super) fn points(share: f64) -> String {
    let text = format!("{:+.2}", 100.0 * share);
    if text == "-0.00" { "+0.00".into() } else { text }
}

/// `= 0.003`; a p-value that is no `f64` any more is `< 1e-300`.
fn equals(p: f64) -> String {
    if p == 0.0 { "< 1e-300".into() } else { format!("= {}", p_value(p)) }
}

/// `25,000`.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_told_from_the_side_that_won() {
        let mut evidence = Evidence {
            stage: "eval".into(),
            method: "lora".into(),
            a: "run_12".into(),
            b: "run_15".into(),
            items: 25_000,
            both_right: 0,
            only_a: 0,
            only_b: 0,
            both_wrong: 0,
            difference: 0.009,
            low: 0.003,
            high: 0.015,
            resamples: 10_000,
            seed: 1337,
            mcnemar_exact_p: 0.0031,
            holm_p: 0.0062,
            better: Some(Side::B),
        };
        assert_eq!(
            finding(&evidence, false),
            "eval.lora: run_15 is better than run_12: +0.90 points (95 % +0.30 … +1.50), p = 0.003, on 25,000 reviews"
        );
        (evidence.difference, evidence.low, evidence.high) = (-0.009, -0.015, -0.003);
        evidence.better = Some(Side::A);
        assert_eq!(
            finding(&evidence, true),
            "eval.lora: run_12 is better than run_15: +0.90 points (95 % +0.30 … +1.50), p = 0.003, corrected 0.006, on 25,000 reviews"
        );
        (evidence.better, evidence.mcnemar_exact_p) = (None, 0.0);
        assert!(finding(&evidence, false).contains("no difference shown, run_15 less run_12: -0.90 points"));
        assert!(finding(&evidence, false).contains("p < 1e-300"));
        assert_eq!([999, 1000, 1_234_567].map(thousands), ["999", "1,000", "1,234,567"]);
    }
}
