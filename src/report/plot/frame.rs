//! The axes of a chart.

use maud::{Markup, html};

use super::Scale;

/// Width of a chart in its own units, about a pixel each on a telephone.
pub(in crate::report) const WIDTH: f64 = 380.0;
/// Height of a chart.
pub(in crate::report) const HEIGHT: f64 = 240.0;

/// Room for the labels of the vertical axis, and around the rest.
const LEFT: f64 = 52.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 38.0;

/// The plane of a chart.
pub(in crate::report) struct Frame {
    /// From values to places, left to right.
    pub x: Scale,
    /// From values to places, bottom to top.
    pub y: Scale,
}

impl Frame {
    /// A plane that holds `x` and `y`.
    pub fn new(x: (f64, f64), y: (f64, f64)) -> Self {
        Self { x: Scale::new(x, (LEFT, WIDTH - RIGHT)), y: Scale::new(y, (HEIGHT - BOTTOM, TOP)) }
    }

    /// Both axes, with the round values of the horizontal one.
    pub fn axes(&self, x_name: &str, y_name: &str) -> Markup {
        let places = self.x.ticks(5).into_iter().map(|(value, label)| (self.x.at(value), label)).collect();
        self.axes_with(x_name, y_name, places)
    }

    /// Both axes, with labels at `places` below the horizontal one.
    pub fn axes_with(&self, x_name: &str, y_name: &str, places: Vec<(f64, String)>) -> Markup {
        let base = HEIGHT - BOTTOM;
        html! {
            g.axes aria-hidden="true" {
                @for (value, label) in self.y.ticks(5) {
                    @let y = px(self.y.at(value));
                    line.grid x1=(LEFT) x2=(WIDTH - RIGHT) y1=(y) y2=(y) {}
                    text x=(LEFT - 6.0) y=(y) dy=".32em" text-anchor="end" { (label) }
                }
                line.axis x1=(LEFT) x2=(WIDTH - RIGHT) y1=(base) y2=(base) {}
                @for (x, label) in places {
                    line.axis x1=(px(x)) x2=(px(x)) y1=(base) y2=(base + 4.0) {}
                    text x=(px(x)) y=(base + 16.0) text-anchor="middle" { (label) }
                }
                text.name x=(f64::midpoint(LEFT, WIDTH - RIGHT)) y=(HEIGHT - 6.0) text-anchor="middle" { (x_name) }
                text.name x="11" y=(f64::midpoint(TOP, base)) text-anchor="middle"
                    transform={ "rotate(-90 11 " (px(f64::midpoint(TOP, base))) ")" } { (y_name) }
            }
        }
    }

    /// `points` as the path of a line.
    pub fn line(&self, points: &[(u64, f64)]) -> String {
        let mut path = String::with_capacity(points.len() * 12);
        for (at, (step, value)) in points.iter().enumerate() {
            path.push(if at == 0 { 'M' } else { 'L' });
            path.push_str(&px(self.x.at(*step as f64)));
            path.push(' ');
            path.push_str(&px(self.y.at(*value)));
        }
        // A line of one point has no length: its round ends make it a dot.
        path + if points.len() == 1 { "h0" } else { "" }
    }
}

/// A place as text: a tenth of a pixel is as fine as anyone sees.
pub(in crate::report) fn px(place: f64) -> String {
    let text = format!("{place:.1}");
    text.strip_suffix(".0").map_or(text.clone(), ToOwned::to_owned)
}
