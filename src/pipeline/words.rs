//! What serde says about a parameter, in the words of the pipeline file.

use pipe_stages::contract::{ParamProblem, StageKind};

use super::suggest::Suggestions;

/// Values that people write instead of those that a parameter has.
const OTHER_VALUES: [(&str, &str); 10] = [
    ("min", "lower"),
    ("minimize", "lower"),
    ("minimise", "lower"),
    ("down", "lower"),
    ("decrease", "lower"),
    ("max", "higher"),
    ("maximize", "higher"),
    ("maximise", "higher"),
    ("up", "higher"),
    ("increase", "higher"),
];

/// A problem with a parameter, put into words.
pub(super) struct Words {
    pub code: &'static str,
    pub message: String,
    pub help: Option<String>,
}

pub(super) fn parameter(
    stage: &str,
    kind: &StageKind,
    problem: &ParamProblem,
    suggestions: &Suggestions,
) -> Words {
    let name = if problem.path.is_empty() { stage.to_owned() } else { format!("{stage}.{}", problem.path) };
    let said = problem.message.as_str();
    let given_help = problem.help.clone();
    if let Some(missing) = said.strip_prefix("missing field ") {
        let parameter = missing.trim_matches('`');
        let message = if problem.path.is_empty() {
            format!("stage `{stage}` needs parameter {missing}")
        } else {
            format!("`{name}` needs {missing}")
        };
        return Words {
            code: "missing_parameter",
            message,
            help: given_help.or_else(|| doc(kind, parameter)),
        };
    }
    if said.contains("has no parameter") || said.starts_with("unknown field") {
        return Words { code: "unknown_parameter", message: said.to_owned(), help: given_help };
    }
    if let Some((wrong, allowed)) =
        said.strip_prefix("unknown variant ").and_then(|rest| rest.split_once(", expected "))
    {
        let allowed = allowed.strip_prefix("one of ").unwrap_or(allowed);
        let names: Vec<&str> = allowed.split('`').skip(1).step_by(2).collect();
        let wrong_name = wrong.trim_matches('`');
        let other = OTHER_VALUES.iter().find(|(other, name)| *other == wrong_name && names.contains(name));
        let near = suggestions.nearest(wrong_name, names.iter().copied());
        let help = near.or(other.map(|(_, name)| *name)).map(|name| format!("did you mean `{name}`?"));
        let choice =
            if names.len() > 1 { format!("one of {}", names.join(", ")) } else { allowed.to_owned() };
        return Words {
            code: "wrong_value",
            message: format!("`{name}` must be {choice}, not {wrong}"),
            help,
        };
    }
    for (prefix, code) in [("invalid type: ", "wrong_type"), ("invalid value: ", "wrong_value")] {
        if let Some((given, wanted)) =
            said.strip_prefix(prefix).and_then(|rest| rest.split_once(", expected "))
        {
            let help = (wanted == "a string" && !matches!(given, "map" | "sequence" | "null"))
                .then(|| "write it in quotes to make it a text".to_owned());
            let message = format!("`{name}` must be {}, not {}", type_words(wanted), given_words(given));
            return Words { code, message, help: given_help.or(help) };
        }
    }
    let message = if said.contains(&format!("`{}`", problem.path)) || said.contains(&format!("`{name}`")) {
        said.to_owned()
    } else {
        format!("`{name}`: {said}")
    };
    Words { code: "wrong_value", message, help: given_help }
}

/// The first line of the documentation of a parameter.
fn doc(kind: &StageKind, parameter: &str) -> Option<String> {
    let schema = kind.schema();
    let doc = schema.get("properties")?.get(parameter)?.get("description")?.as_str()?;
    Some(format!("{parameter}: {}", doc.lines().next()?))
}

fn type_words(wanted: &str) -> &str {
    match wanted {
        "u8" | "u16" | "u32" | "u64" | "usize" | "a nonzero usize" | "a nonzero u32" | "a nonzero u64" => {
            "a whole number from 0"
        }
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a string" | "string or map" => "a text",
        "a boolean" => "`true` or `false`",
        "a sequence" => "a list",
        other => other.strip_prefix("struct ").map_or(other, |_| "a map"),
    }
}

fn given_words(given: &str) -> String {
    let quoted = |prefix: &str| given.strip_prefix(prefix).map(|rest| rest.trim_matches('`').to_owned());
    if let Some(text) = given.strip_prefix("string ") {
        format!("the text {text}")
    } else if let Some(number) = quoted("integer ").or_else(|| quoted("floating point ")) {
        number
    } else if let Some(value) = quoted("boolean ") {
        format!("`{value}`")
    } else {
        match given {
            "null" | "unit value" => "nothing".into(),
            "sequence" => "a list".into(),
            "map" => "a map".into(),
            other => other.to_owned(),
        }
    }
}
