//! `pipe plot`: curves in the terminal and as SVG files.

use std::fs;

use super::{steps, trained};

#[test]
fn a_curve_fits_the_terminal_and_has_its_ends_written_at_its_axes() {
    let said = trained().pipe(&["plot", "run_1", "lora.loss"]).success().stdout;
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!((lines.len(), lines[0]), (19, "lora.loss, of run_1"), "{said}");
    assert!(lines.iter().all(|line| line.chars().count() <= 80), "{said}");
    let points = steps(trained(), "lora.loss");
    let value = |line: &str| line.split_whitespace().next().unwrap().parse::<f64>().unwrap();
    let highest = points.iter().map(|point| point.1).fold(f64::MIN, f64::max);
    let lowest = points.iter().map(|point| point.1).fold(f64::MAX, f64::min);
    assert!((value(lines[1]) - highest).abs() < 1e-4 && (value(lines[16]) - lowest).abs() < 1e-4, "{said}");
    let (first, last) = (points[0].0, points.last().unwrap().0);
    let ends = lines[18].split_whitespace().collect::<Vec<_>>();
    assert_eq!(ends, ["step", &first.to_string(), &last.to_string()]);
    let drawn = |line: &&&str| line.chars().any(|c| ('\u{2801}'..='\u{28ff}').contains(&c));
    assert!(lines[1..17].iter().filter(drawn).count() > 3, "{said}");
}

#[test]
fn a_curve_becomes_an_svg_file_that_needs_nothing_else() {
    let lab = trained();
    lab.pipe(&["plot", "run_1", "fine_tune.loss", "--out", "loss.svg"]).success();
    let svg = fs::read_to_string(lab.path("loss.svg")).unwrap();
    assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\"") && svg.ends_with("</svg>"), "{svg}");
    assert!(svg.contains("fine_tune.loss") && svg.contains(">validation_loss</text>"), "{svg}");
    assert!(svg.matches("<path class=\"line ").count() >= 2, "{svg}");
    assert!(!svg.contains("var(") && !svg.contains("href"), "{svg}");
}

#[test]
fn what_cannot_be_drawn_is_refused_with_what_can() {
    let said = trained().pipe(&["plot", "run_1"]).ends_with_code(2).stderr;
    assert!(said.contains("no metric is named") && said.contains("lora.loss"), "{said}");
    let said = trained().pipe(&["plot", "run_1", "lora.los"]).ends_with_code(2).stderr;
    assert!(
        said.contains("`lora.los` has no values at steps in run_1") && said.contains("lora.loss"),
        "{said}"
    );
    let said = trained().pipe(&["plot", "run_1", "lora.loss", "--out", "loss.png"]).ends_with_code(2).stderr;
    assert!(said.contains("only SVG is drawn"), "{said}");
}
