//! The queries of `docs/runs-db.md` answer.

use pipe::record::Metric;
use rusqlite::{Connection, types::Value as Cell};
use serde_json::json;

use crate::lab::{Lab, Stage, after, execution, stage};

fn experiment(rank: u32, accuracy: f64) -> Vec<Stage> {
    vec![
        stage("reviews", "sample", json!({ "count": 100 })),
        stage("lora", "train", json!({ "rank": rank, "targets": ["q", "v"], "schedule": { "warmup": 10 } })),
        stage("eval", "score", json!({ "rank": rank })).metric("lora.accuracy", accuracy),
    ]
}

fn documented() -> (Lab, Vec<String>) {
    let mut lab = Lab::new();
    lab.run(&experiment(8, 0.75));
    let run = lab.run(&experiment(16, 0.5));
    lab.run(&experiment(16, 0.5));
    let mut made = execution(run, &experiment(16, 0.5)[1], after(run, 11));
    made.metrics = vec![Metric { name: "loss".into(), step: Some(0), value: Some(0.7) }];
    lab.db.record_execution(&made).unwrap();
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/runs-db.md")).unwrap();
    let queries = text.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned());
    (lab, queries.collect())
}

fn rows(conn: &Connection, sql: &str) -> Vec<Vec<Cell>> {
    let mut query = conn.prepare(sql).unwrap_or_else(|err| panic!("{sql}: {err}"));
    let columns = query.column_count();
    let cells = |row: &rusqlite::Row<'_>| (0..columns).map(|column| row.get(column)).collect();
    query.query_map([], cells).unwrap().collect::<Result<_, _>>().unwrap_or_else(|err| panic!("{sql}: {err}"))
}

#[test]
fn every_documented_query_answers() {
    let (lab, queries) = documented();
    let conn = Connection::open(lab.path()).unwrap();
    assert!(queries.len() >= 9);
    for sql in &queries {
        assert!(!rows(&conn, sql).is_empty(), "no answer to {sql}");
    }
    let best = queries.iter().find(|sql| sql.contains("max(value) AS accuracy")).unwrap();
    assert_eq!(rows(&conn, best), [[Cell::Text("run_1".into()), Cell::Real(0.75)]]);
    let ranks = queries.iter().find(|sql| sql.contains("AS rank")).unwrap();
    let pairs =
        [(8, 0.75), (16, 0.5)].map(|(rank, accuracy)| vec![Cell::Integer(rank), Cell::Real(accuracy)]);
    assert_eq!(rows(&conn, ranks), pairs);
}

#[test]
fn every_documented_column_exists() {
    let (lab, _) = documented();
    let conn = Connection::open(lab.path()).unwrap();
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/runs-db.md")).unwrap();
    let views = text.split("## Views").nth(1).unwrap().split("## Tables").next().unwrap();
    let mut count = 0;
    for line in views.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let view = cells[1].trim_matches('`');
        let mut documented: Vec<String> = Vec::new();
        let mut depth = 0;
        for part in cells[3].split_inclusive(['(', ')', ',']) {
            if depth == 0 {
                documented
                    .push(part.trim_matches(|c: char| c == '`' || c == ' ' || c == '(' || c == ',').into());
            }
            depth += i32::from(part.ends_with('(')) - i32::from(part.ends_with(')'));
        }
        documented.retain(|name| !name.is_empty() && !name.contains(')'));
        let query = conn.prepare(&format!("SELECT * FROM {view}")).unwrap();
        assert_eq!(documented, query.column_names().collect::<Vec<_>>(), "{view}");
        count += 1;
    }
    assert_eq!(count, 8);
    let params = "SELECT param, value FROM param WHERE run = 3 AND stage = 'lora' ORDER BY param";
    let expected = [
        [Cell::Text("rank".into()), Cell::Integer(16)],
        [Cell::Text("schedule.warmup".into()), Cell::Integer(10)],
        [Cell::Text("targets".into()), Cell::Text("[\"q\",\"v\"]".into())],
    ];
    assert_eq!(rows(&conn, params), expected.map(|[name, value]: [Cell; 2]| vec![name, value]));
}
