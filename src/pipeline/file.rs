//! The text of a pipeline file.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use super::{outside, places::Text, problem::Finding, suggest::Suggestions};

/// Largest pipeline file, in bytes.
const LARGEST: u64 = 16 << 20;

/// What was read from pipes: that can be done once, and a file may be read more often.
static PIPED: Mutex<BTreeMap<PathBuf, Vec<u8>>> = Mutex::new(BTreeMap::new());

/// Reads the bytes of the file as text.
pub(super) fn read(path: &Path, suggestions: &Suggestions) -> Result<Arc<Text>, Finding> {
    let unreadable = |err: &io::Error| {
        let found = Finding::new("unreadable_file", format!("cannot read `{}`: {err}", path.display()));
        if err.kind() == io::ErrorKind::NotFound {
            let found = Finding { message: format!("there is no file `{}`", path.display()), ..found };
            found.help(
                meant_file(path, suggestions).map(|meant| format!("did you mean `{}`?", meant.display())),
            )
        } else {
            found
        }
    };
    if path.to_str().is_none() {
        let message = format!("cannot use `{}`: its name is not text in UTF-8", path.display());
        return Err(Finding::new("bad_name", message).help("give it another name".to_owned()));
    }
    let bytes = bytes(path).map_err(|err| unreadable(&err))?;
    if bytes.len() as u64 > LARGEST {
        let message = format!("`{}` is larger than 16 MiB, too large for a pipeline", path.display());
        return Err(Finding::new("too_large", message));
    }
    let text = String::from_utf8(bytes).map_err(|err| {
        let at = err.utf8_error().valid_up_to();
        let shown = visible(&String::from_utf8_lossy(err.as_bytes()));
        let shown = Text::file(path.to_path_buf(), shown);
        let range = at..at + char::REPLACEMENT_CHARACTER.len_utf8();
        Finding::new("not_text", format!("`{}` is not a text file in UTF-8", path.display())).bytes(
            &shown,
            range,
            Some("the first byte that is not UTF-8"),
        )
    })?;
    let text = text.strip_prefix('\u{feff}').map_or(text.clone(), str::to_owned);
    if let Some(at) = text.find(is_refused) {
        let found = Finding::new(
            "not_text",
            format!("`{}` holds control characters, so it is not YAML", path.display()),
        );
        let end = at + text[at..].chars().next().map_or(0, char::len_utf8);
        let label = format!("the first is U+{:04X}", text[at..].chars().next().map_or(0, u32::from));
        let shown = Text::file(path.to_path_buf(), visible(&text));
        return Err(found.bytes(&shown, at..end, Some(&label)));
    }
    let text = Text::file(path.to_path_buf(), text);
    // Readers of YAML disagree on what it means there, and nobody sees it.
    if let Some(at) = text.content.find('\u{feff}') {
        let found = Finding::new("hidden_character", "the invisible character U+FEFF stands inside the file");
        let help = "remove it; in a text in double quotes it is written `\\uFEFF`".to_owned();
        return Err(found.bytes(&text, at..at + '\u{feff}'.len_utf8(), Some("here")).help(help));
    }
    Ok(text)
}

/// The bytes of the file, as far as a pipeline may be long and one more.
fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut piped = PIPED.lock().expect("nothing panics while it is locked");
    if let Some(bytes) = piped.get(path) {
        return Ok(bytes.clone());
    }
    let file = File::open(path)?;
    let is_pipe = file.metadata()?.file_type().is_fifo();
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if is_pipe {
        piped.insert(path.to_owned(), bytes.clone());
    }
    Ok(bytes)
}

/// Whether YAML refuses this character.
fn is_refused(c: char) -> bool {
    c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\u{85}')
}

/// `text` with something visible, of as many bytes, in place of control characters.
fn visible(text: &str) -> String {
    let seen = |c: char| match c.len_utf8() {
        _ if !is_refused(c) => c,
        1 => '?',
        _ => '¿',
    };
    text.chars().map(seen).collect()
}

/// The file that was probably meant by one that does not exist.
fn meant_file(path: &Path, suggestions: &Suggestions) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let with_ending =
        [path.with_file_name(format!("{name}.yaml")), path.with_file_name(format!("{name}.yml"))];
    let below = [Path::new("pipelines").join(name), Path::new("pipelines").join(format!("{name}.yaml"))];
    let exact = with_ending.into_iter().chain(below).find(|path| path.is_file());
    exact.or_else(|| outside::near_file(path, suggestions).map(|near| path.with_file_name(near)))
}
