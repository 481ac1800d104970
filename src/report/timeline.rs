//! What a run executed when.

use maud::{Markup, html};

use super::plot::{Scale, px};
use crate::{
    runs::{LoadedRun, LoadedStage},
    units::{counted, duration},
};

/// Rows that are drawn; of more stages the longest are.
const MOST: usize = 100;
/// Height of a row, and where in it the name and the bar are.
const ROW: f64 = 32.0;
const NAME: f64 = 11.0;
const BAR: (f64, f64) = (16.0, 10.0);

/// When the stages of `run` ran; `id` is unique in the page.
///
/// Places along the line of time are percentages, so that the drawing is as wide as the page and
/// its words stay readable.
pub(super) fn timeline(id: &str, run: &LoadedRun) -> Markup {
    let mut bars: Vec<(&LoadedStage, f64, f64)> = run
        .stages
        .iter()
        .filter_map(|stage| {
            let start = stage.started?.duration_since(run.info.started).as_secs_f64();
            Some((stage, start.max(0.0), stage.duration?))
        })
        .collect();
    if bars.is_empty() {
        return html! { p { (run.info.run) " executed nothing: every stage had a result." } };
    }
    let found = run.stages.len() - bars.len();
    let hidden = bars.len().saturating_sub(MOST);
    if hidden > 0 {
        bars.sort_by(|a, b| b.2.total_cmp(&a.2));
        bars.truncate(MOST);
    }
    bars.sort_by(|a, b| a.1.total_cmp(&b.1));
    let end =
        bars.iter().map(|(_, start, took)| start + took).fold(run.info.seconds.unwrap_or(0.0), f64::max);
    let scale = Scale::new((0.0, end.max(1e-3)), (0.0, 100.0));
    let (caption, base) = (format!("When {} ran what", run.info.run), bars.len() as f64 * ROW);
    let described: Vec<String> = bars
        .iter()
        .map(|(stage, start, took)| {
            format!("{}: after {}, for {}.", stage.stage, duration(*start), duration(*took))
        })
        .collect();
    html! {
        figure.wide {
            figcaption { (caption) }
            svg.timeline id=(id) role="img" width="100%" height=(base + 24.0) aria-labelledby={ (id) "-title " (id) "-desc" } {
                title id={ (id) "-title" } { (caption) }
                desc id={ (id) "-desc" } { (described.join(" ")) }
                @for (seconds, _) in scale.ticks(5) {
                    @let x = format!("{}%", px(scale.at(seconds)));
                    line.grid x1=(x) x2=(x) y1="0" y2=(base) {}
                    text x=(x) y=(base + 16.0) text-anchor=(anchor(scale.at(seconds))) { (duration(seconds)) }
                }
                @for (row, (stage, start, took)) in bars.iter().enumerate() {
                    @let y = row as f64 * ROW;
                    g.bar.(stage.outcome.word()) {
                        title { (described[row]) }
                        text x="0" y=(y + NAME) { (stage.stage) }
                        text.state x="100%" y=(y + NAME) text-anchor="end" { (stage.outcome.word()) ", " (duration(*took)) }
                        rect x={ (px(scale.at(*start))) "%" } y=(y + BAR.0) height=(BAR.1) rx="2"
                            width={ (px((scale.at(*took) - scale.at(0.0)).max(0.2))) "%" } {}
                    }
                }
            }
            @if found > 0 { p.remark { (counted(found, "stage")) " not drawn: found, or not reached." } }
            @if hidden > 0 { p.remark { "The longest " (MOST) "; " (counted(hidden, "stage")) " more ran." } }
        }
    }
}

/// So that the first and the last label stay within the drawing.
fn anchor(percent: f64) -> &'static str {
    match percent {
        ..4.0 => "start",
        96.0.. => "end",
        _ => "middle",
    }
}
