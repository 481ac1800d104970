//! The program that measures GPUs, its answers with the kernels on the processor.

mod machines;
#[path = "../benches/requests/mod.rs"]
mod requests;

use std::collections::BTreeMap;

use machines::{Tested, tests_of};
use pipe_cuda::profile::Clock;
use requests::{SMALL, Timed};
use serde_json::Value;

tests_of! {
    every_request_is_answered_by_times_and_what_they_are_of,
    what_cannot_be_answered_is_an_error_that_says_why,
    the_profile_of_a_forward_pass_has_every_kernel_and_product_of_its_blocks,
    the_profile_of_an_update_has_the_copies_and_one_update_of_all_parameters,
}

/// Answers requests on the first of the machines, if there are any.
fn timed<M: Tested + Clock>() -> Option<Timed<M>> {
    let machine = M::all().first()?.machine().clone();
    Some(Timed::new(machine, "a test".to_owned(), SMALL).unwrap())
}

fn keys(answer: &Value) -> Vec<&str> {
    answer.as_object().unwrap().keys().map(String::as_str).collect()
}

/// How often each task was done in a repetition.
fn counts(answer: &Value) -> BTreeMap<&str, u64> {
    let tasks = answer["tasks"].as_array().unwrap();
    tasks.iter().map(|task| (task["name"].as_str().unwrap(), task["count"].as_u64().unwrap())).collect()
}

fn every_request_is_answered_by_times_and_what_they_are_of<M: Tested + Clock>() {
    let Some(mut timed) = timed::<M>() else { return };
    let times = ["least", "most", "on", "repetitions", "seconds", "tokens_per_second"];
    for request in ["forward f32 2 5", "forward f16 2 5", "last bf16 3 4"] {
        let answer = timed.answer(request).unwrap();
        let mut wanted = [&times[..], &["operations", "prompts", "tokens"]].concat();
        wanted.sort_unstable();
        assert_eq!(keys(&answer), wanted, "{request}");
        let [least, median, most] = ["least", "seconds", "most"].map(|key| answer[key].as_f64().unwrap());
        assert!(0.0 < least && least <= median && median <= most, "{answer}");
        assert_eq!(answer["repetitions"], 1);
    }
    for request in ["update fine_tune f32 0.1 3 5", "update lora f16 0 4"] {
        let mut wanted = [&times[..], &["lengths"]].concat();
        wanted.sort_unstable();
        assert_eq!(keys(&timed.answer(request).unwrap()), wanted, "{request}");
    }
}

fn what_cannot_be_answered_is_an_error_that_says_why<M: Tested + Clock>() {
    let Some(mut timed) = timed::<M>() else { return };
    for (request, wanted) in [
        ("backward f32 2 5", "no such request: `backward f32 2 5`"),
        ("forward f8 2 5", "no such precision: `f8`"),
        ("forward f32 0 5", "no such count: `0`"),
        ("profile update prefix f32 0.1 4", "no such method: `prefix`"),
    ] {
        assert_eq!(timed.answer(request).unwrap_err().to_string(), wanted);
    }
}

fn the_profile_of_a_forward_pass_has_every_kernel_and_product_of_its_blocks<M: Tested + Clock>() {
    let Some(mut timed) = timed::<M>() else { return };
    let answer = timed.answer("profile forward f16 2 5").unwrap();
    let counts = counts(&answer);
    assert_eq!(counts["attention_f16"], 12);
    let products: BTreeMap<_, _> =
        counts.iter().filter(|(name, _)| name.starts_with("product")).map(|(k, v)| (*k, *v)).collect();
    let wanted = [
        ("product 10×192×64 f16 nn", 12),
        ("product 10×256×64 f16 nn", 12),
        ("product 10×64×256 f16 nn", 12),
        ("product 10×64×64 f16 nn", 12),
    ];
    assert_eq!(products, BTreeMap::from(wanted));
    assert!(!counts.contains_key("upload") && !counts.contains_key("zeros"), "{counts:?}");
    let [empty, busy, span] = ["empty", "busy", "span"].map(|key| answer[key].as_f64().unwrap());
    assert!(empty < busy && 0.0 < busy && busy <= span, "{answer}");
}

fn the_profile_of_an_update_has_the_copies_and_one_update_of_all_parameters<M: Tested + Clock>() {
    let Some(mut timed) = timed::<M>() else { return };
    let answer = timed.answer("profile update fine_tune f32 0.1 3 5").unwrap();
    let counts = counts(&answer);
    for once in ["cross_entropy", "squares", "adamw"] {
        assert_eq!(counts[once], 1, "{once}");
    }
    // The loss and the norm.
    assert_eq!(counts["download"], 2);
    assert!(counts["upload"] >= 1);
}
