//! Kind `fetch`: a file from the web, known by its hash.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    contract::{ParamProblem, PortType, Ports, Stage, StageCx, StageError},
    download::Download,
};

/// Downloads a file and checks its hash.
pub struct Fetch;

/// Parameters of `fetch`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Address of the file, `http://` or `https://`. A change of address alone reruns nothing.
    pub url: String,
    /// SHA-256 of the file, 64 hexadecimal digits. Required: it says which file is meant.
    pub sha256: String,
    /// How many times to try again after a broken connection, without anything new having arrived.
    #[serde(default = "default_retries")]
    pub retries: u32,
    /// Seconds without a connection or a byte after which a try is given up, at least 1.
    #[serde(default = "default_timeout")]
    pub timeout: u32,
}

fn default_retries() -> u32 {
    4
}

fn default_timeout() -> u32 {
    30
}

impl Stage for Fetch {
    type Params = Params;
    const KIND: &'static str = "fetch";
    const SUMMARY: &'static str = "Downloads a file and checks its hash";
    const VERSION: u32 = 1;

    fn ports(_: &Params) -> Ports {
        Ports::new().output("file", PortType::File, "the file, byte for byte")
    }

    fn check(params: &Params) -> Vec<ParamProblem> {
        let mut problems = Vec::new();
        let host = params.url.strip_prefix("http://").or_else(|| params.url.strip_prefix("https://"));
        if host.is_none_or(|host| host.is_empty() || host.starts_with('/')) {
            let problem = ParamProblem::new("url", format!("`{}` is no http or https address", params.url));
            problems
                .push(problem.help("a file on this machine is an input: `in: { archive: { file: PATH } }`"));
        }
        if params.sha256.len() != 64 || !params.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let message = format!("`{}` is no SHA-256: 64 hexadecimal digits", params.sha256);
            problems.push(ParamProblem::new("sha256", message).help("`sha256sum FILE` prints it"));
        }
        if params.timeout == 0 {
            problems.push(ParamProblem::new("timeout", "a timeout of 0 seconds never connects"));
        }
        problems
    }

    fn hashed(params: &Params) -> Value {
        json!({ "sha256": params.sha256.to_ascii_lowercase() })
    }

    fn run(params: Params, cx: &mut StageCx<'_>) -> Result<(), StageError> {
        let download = Download {
            url: params.url,
            sha256: params.sha256.to_ascii_lowercase(),
            retries: params.retries,
            timeout: Duration::from_secs(params.timeout.into()),
            backoff: Duration::from_secs(1),
        };
        download.fetch(cx.checkpoint(), cx.output("file"), &cx)
    }
}
