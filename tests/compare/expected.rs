//! Published values beside ours.

use serde_json::Value;

use crate::lab::Lab;

/// One method that has 3 of 4 reviews right, and what is expected of it.
fn project(expect: &str) -> Lab {
    let lab = Lab::new(&format!(
        "stages:\n  eval: {{ kind: evaluate, in: {{ m: {{ file: a.csv }} }} }}\nexpect:\n{expect}\n\
         profiles:\n  other: {{ expect: {{ eval.m.accuracy: {{ value: 0.75, tolerance: 0 }} }} }}\n  none: {{ expect: null }}\n"
    ));
    let rows = ["r1,5,1,0.9,1", "r2,5,1,0.8,1", "r3,5,0,0.1,0", "r4,5,0,0.7,1"];
    lab.write("a.csv", format!("id,length,label,score,prediction\n{}\n", rows.join("\n")));
    lab
}

const TWO: &str = "  eval.m.accuracy: { value: 0.7, tolerance: 0.01, source: The article }
  eval.m.recall: { value: 0.9936, tolerance: 0.01 }";

#[test]
fn run_show_and_compare_say_what_was_reproduced() {
    let lab = project(TWO);
    let table = "\
EXPECTED           VALUE     OURS
eval.m.accuracy  0.70000  0.75000  not reproduced (off by +0.05000)
eval.m.recall    0.99360        1  reproduced
values: The article
";
    let said = lab.run(&[]).success().stdout;
    assert!(said.ends_with(table), "an expectation that is not met is no failure:\n{said}");
    let said = lab.pipe(&["show", "1"]).success().stdout;
    assert!(said.ends_with(table), "{said}");
    lab.run(&["--profile", "other"]).success();
    let said = lab.pipe(&["compare", "1", "2"]).success().stdout;
    for row in [
        "eval.m.accuracy  0.70000  not reproduced (off by +0.05000)",
        "eval.m.recall    0.99360  reproduced                        reproduced",
        "eval.m.accuracy  0.75000                                    reproduced",
    ] {
        assert!(said.contains(row), "no `{row}` in\n{said}");
    }
    let said = lab.pipe(&["show", "2", "--json"]).success().stdout;
    let shown: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(shown["expected"][0]["reproduced"], true);
    assert_eq!(shown["expected"][0]["source"], Value::Null, "another value has another source");
}

#[test]
fn what_was_not_measured_is_one_line() {
    let lab = project(TWO);
    lab.edit("stages:", "stages:\n  other: { kind: sample_reviews, with: { train: 2, test: 2 } }");
    let said = lab.run(&["--until", "other"]).success().stdout;
    assert_eq!(said.trim(), "2 expected values not measured");
    lab.write("a.csv", "id,length,label,score,prediction\nr1,5,0,0.9,1\nr2,5,0,0.1,0\n");
    let said = lab.run(&[]).success().stdout;
    assert!(said.ends_with("values: The article\n1 expected value not measured (eval.m.recall)\n"), "{said}");
}

#[test]
fn what_is_expected_is_in_no_key_and_a_profile_can_take_it_away() {
    let lab = project(TWO);
    lab.run(&[]).success();
    let said = lab.run(&["--profile", "none"]).success();
    assert!(said.stderr.contains("nothing to do, 1 cached"), "{}", said.stderr);
    assert!(!said.stdout.contains("EXPECTED"), "{}", said.stdout);
}

#[test]
fn an_expectation_that_nothing_can_meet_is_an_error_where_it_is_written() {
    let lab = project(
        "  eval.m.acuracy: { value: 0.7, tolerance: 0.01 }
  evl.m.recall: { value: 0.7, tolerance: 0.01 }
  eval.n.recall: { value: 0.7, tolerance: -1 }
  eval.m.f1: { vale: 0.7 }",
    );
    let said = lab.run(&[]).ends_with_code(2).stderr;
    for wanted in [
        "kind `evaluate` has no metric `m.acuracy`",
        "did you mean `accuracy`?",
        "pipelines/p.yaml:4:3",
        "`evl.m.recall` is of stage `evl`, which is not in the pipeline",
        "did you mean `eval`?",
        "stage `eval` has no input `n`, so no metric `n.recall`",
        "`tolerance` must be a number from 0, not the number -1",
        "an expectation has no field `vale`",
        "expectation `eval.m.f1` has no `value`",
        "expectation `eval.m.f1` has no `tolerance`",
    ] {
        assert!(said.contains(wanted), "no `{wanted}` in\n{said}");
    }
}
