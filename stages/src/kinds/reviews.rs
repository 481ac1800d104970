//! Kind `reviews`: the labelled reviews of the published dataset, all or a balanced draw.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    acl_imdb::{self, Split},
    contract::{MetricDoc, PortType, Ports, Stage, StageCx, StageError},
    data::{Review, write_reviews},
    draw::Draw,
};

/// Reads the reviews of aclImdb from its archive or folder.
pub struct Reviews;

/// Parameters of `reviews`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    /// Reviews for training: `all` or a count. A count is balanced: half positive, half negative,
    /// the odd one positive.
    pub train: Count,
    /// Held-out reviews: `all` or a count, balanced as in `train`.
    pub test: Count,
    /// Seed of the draw, where there is a count. A smaller count draws a part of what a larger one does.
    pub seed: u64,
}

impl Default for Params {
    fn default() -> Self {
        Self { train: Count::All, test: Count::All, seed: 1337 }
    }
}

/// How many reviews to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Every one.
    All,
    /// So many, at least 1.
    Exactly(usize),
}

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Count::All => serializer.serialize_str("all"),
            Count::Exactly(count) => serializer.serialize_u64(*count as u64),
        }
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`all` or a count of at least 1")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Count, E> {
                match text {
                    "all" => Ok(Count::All),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_u64<E: de::Error>(self, count: u64) -> Result<Count, E> {
                match usize::try_from(count) {
                    Ok(count @ 1..) => Ok(Count::Exactly(count)),
                    _ => Err(E::invalid_value(de::Unexpected::Unsigned(count), &self)),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Count {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Count".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "oneOf": [{ "const": "all" }, { "type": "integer", "minimum": 1 }] })
    }
}

impl Stage for Reviews {
    type Params = Params;
    const KIND: &'static str = "reviews";
    const SUMMARY: &'static str = "Reads the movie reviews of aclImdb (Maas et al. 2011)";
    const VERSION: u32 = 1;

    fn ports(_: &Params) -> Ports {
        let archive = "aclImdb as published: the tar.gz (or a plain tar), or its folder unpacked";
        Ports::new()
            .input("archive", PortType::FileOrFolder, archive)
            .output("train", PortType::Reviews, "reviews for training, sorted by id")
            .output("test", PortType::Reviews, "held-out reviews, sorted by id")
    }

    fn metrics() -> &'static [MetricDoc] {
        const {
            &[
                MetricDoc::neutral("*.positive", "positive reviews in `train` or `test`"),
                MetricDoc::neutral("*.negative", "negative reviews in `train` or `test`"),
            ]
        }
    }

    fn run(params: Params, cx: &mut StageCx<'_>) -> Result<(), StageError> {
        let found = acl_imdb::read(cx.input("archive"), |done| cx.progress(done, None, "reviews"))?;
        cx.log(format_args!(
            "{} reviews for training, {} held out, {} other files passed over",
            found.train.len(),
            found.test.len(),
            found.passed_over
        ));
        let halves = [(Split::Train, params.train, found.train), (Split::Test, params.test, found.test)];
        for (split, count, reviews) in halves {
            let chosen = choose(split, count, reviews, params.seed)?;
            for (label, name) in [(1, "positive"), (0, "negative")] {
                let count = chosen.iter().filter(|review| review.label == label).count();
                cx.metric(&format!("{}.{name}", split.name()), count as f64);
            }
            write_reviews(cx.output(split.name()), &chosen)?;
        }
        Ok(())
    }
}

/// The reviews to take, in the order of `reviews`.
fn choose(split: Split, count: Count, reviews: Vec<Review>, seed: u64) -> Result<Vec<Review>, StageError> {
    let name = split.name();
    let Count::Exactly(count) = count else {
        if reviews.is_empty() {
            let message = format!("`{name}: all` finds nothing: the archive has no reviews in `{name}/`");
            return Err(StageError::new(message)
                .help(format!("reviews lie in `{name}/pos/` and `{name}/neg/`, as `ID_RATING.txt`")));
        }
        return Ok(reviews);
    };
    let mut is_chosen = vec![false; reviews.len()];
    for (label, wanted, word) in [(0, count / 2, "negative"), (1, count.div_ceil(2), "positive")] {
        let places: Vec<usize> = (0..reviews.len()).filter(|place| reviews[*place].label == label).collect();
        if places.len() < wanted {
            let message =
                format!("`{name}: {count}` needs {wanted} {word} reviews, the archive has {}", places.len());
            let most = reviews.iter().filter(|review| review.label != label).count().min(places.len()) * 2;
            return Err(StageError::new(message).help(format!("write at most `{name}: {most}`, or `all`")));
        }
        let mut draw = Draw::new(seed, split as u64 * 2 + u64::from(label));
        for index in draw.order(places.len()).into_iter().take(wanted) {
            is_chosen[places[index]] = true;
        }
    }
    Ok(reviews.into_iter().zip(is_chosen).filter(|(_, chosen)| *chosen).map(|(review, _)| review).collect())
}
