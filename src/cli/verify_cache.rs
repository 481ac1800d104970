//! `pipe verify --cache`: whether the cache is whole, and which runs need what is not.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::{
    Failure, Globals,
    execute::join,
    gc, history,
    table::{BAD, DIM, styled},
    units::{counted, size},
};
use crate::{
    cache::{Audit, Cache},
    names::RunId,
    runs::RunsDb,
};

/// How many stages that need a damaged object are named.
const NAMED: usize = 5;

/// The stages of runs that an object satisfied, latest run first.
type Users = Vec<(RunId, String)>;

/// Hashes everything again and tells what is damaged; `repair` removes it.
pub(super) fn check(globals: &Globals, repair: bool, as_json: bool) -> Result<ExitCode, Failure> {
    let root = globals.project_root(None)?;
    let folder = root.join("cache");
    let cache = Cache::open(&folder);
    // Where there is no cache, none is made by looking.
    let hold = folder.exists().then(|| join(&cache, &|text| globals.say(text))).transpose()?;
    let audit = cache.audit();
    drop(hold);
    let path = root.join("runs.db");
    let database = if path.exists() { Some(RunsDb::open_existing(&path)?) } else { None };
    if repair && !audit.is_whole() {
        let _alone = gc::alone(&cache, database.as_ref())?;
        cache.repair(&audit).map_err(Failure::error)?;
    }
    let users = users(&audit, database.as_ref())?;
    let printed = if as_json {
        globals.print(history::json_text(&document(&audit, &users, repair)))
    } else {
        history::print(globals, &told(globals, &audit, &users, repair)).map(drop)
    };
    Failure::after(u8::from(!audit.is_whole() && !repair), printed)
}

/// Who needs each flawed object.
fn users(audit: &Audit, database: Option<&RunsDb>) -> Result<Vec<Users>, Failure> {
    let digests = audit.flawed.keys();
    Ok(match database {
        Some(database) => digests.map(|digest| database.users(*digest)).collect::<Result<_, _>>()?,
        None => digests.map(|_| Users::new()).collect(),
    })
}

fn told(globals: &Globals, audit: &Audit, users: &[Users], repair: bool) -> String {
    let objects = audit.flawed.iter().zip(users).map(|((digest, (damage, _)), users)| {
        let named: Vec<String> =
            users.iter().take(NAMED).map(|(run, stage)| format!("{stage} of {run}")).collect();
        let who = match users.len() - named.len() {
            0 if named.is_empty() => "no recorded run".to_owned(),
            0 => named.join(", "),
            more => format!("{} and {more} more", named.join(", ")),
        };
        format!("{} object {}  {who}\n", styled(BAD, damage.word()), digest.short())
    });
    let results = audit.unreadable.iter();
    let results = results.map(|file| format!("{} result {}\n", styled(BAD, "damaged"), file.display()));
    let strays = audit.strays.iter().map(|path| {
        let path = path.display();
        let collect = globals.rooted("`pipe gc`");
        format!("{} {path}  no object: a command left it there, {collect} removes it\n", styled(DIM, "stray"))
    });
    let flaws = audit.flawed.len() + audit.unreadable.len();
    let verdict = match flaws {
        0 => "all whole".to_owned(),
        _ if repair => format!("{flaws} damaged or missing, removed; the next run computes them again"),
        _ => format!("{flaws} damaged or missing; --repair makes the next run compute them again"),
    };
    let hashed = format!(
        "{} of {} hashed, {}",
        counted(audit.objects, "object"),
        counted(audit.results, "result"),
        size(audit.bytes)
    );
    objects.chain(results).chain(strays).chain([format!("{hashed}: {verdict}\n")]).collect()
}

fn document(audit: &Audit, users: &[Users], repair: bool) -> Value {
    let flawed = audit.flawed.iter().zip(users).map(|((digest, (damage, keys)), users)| {
        let users: Vec<Value> =
            users.iter().map(|(run, stage)| json!({"run": run, "stage": stage})).collect();
        json!({"digest": digest, "damage": damage.word(), "results": keys, "used_by": users})
    });
    json!({
        "results": audit.results,
        "objects": audit.objects,
        "bytes": audit.bytes,
        "flawed": flawed.collect::<Vec<_>>(),
        "unreadable": audit.unreadable,
        "strays": audit.strays,
        "repaired": repair,
    })
}
