//! Which stage feeds which, in layers: places for boxes and for the lines between them.
//!
//! Pure. A stage stands one layer behind the last stage that it takes from. A line over several
//! layers gets a place in each of them, so that it passes between the boxes; the order in a layer
//! follows the mean place of the neighbours (Sugiyama, Tagawa, Toda 1981).

use std::collections::BTreeMap;

/// Width and height of a box.
pub(super) const BOX: (f64, f64) = (158.0, 42.0);
/// Between layers, and between boxes of a layer.
const GAP: (f64, f64) = (44.0, 16.0);
/// Height of a line where it passes through a layer.
const PASSAGE: f64 = 6.0;
/// Around everything.
const MARGIN: f64 = 4.0;
/// How often the orders of layers are improved, forth and back.
const SWEEPS: usize = 6;

/// Places for a graph.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Layout {
    /// The upper left corner of each node's box.
    pub boxes: Vec<(f64, f64)>,
    /// The points that each edge goes through, from the right side of a box to the left of another.
    pub lines: Vec<Vec<(f64, f64)>>,
    /// Width and height of everything.
    pub size: (f64, f64),
}

/// Lays out `count` nodes; an edge `(from, to)` says that `to` takes from `from`.
///
/// Edges that close a circle are drawn, but do not move boxes.
pub(super) fn layout(count: usize, edges: &[(usize, usize)]) -> Layout {
    let layer_of = layers(count, edges);
    // Points of the drawing: the nodes, then a passage for each layer that an edge crosses.
    let mut layers: Vec<Vec<usize>> = vec![Vec::new(); layer_of.iter().max().map_or(0, |last| last + 1)];
    (0..count).for_each(|node| layers[layer_of[node]].push(node));
    let mut routes: Vec<Vec<usize>> = Vec::with_capacity(edges.len());
    let mut points = count;
    for (from, to) in edges {
        let mut route = vec![*from];
        for layer in layers.iter_mut().take(layer_of[*to]).skip(layer_of[*from] + 1) {
            layer.push(points);
            route.push(points);
            points += 1;
        }
        route.push(*to);
        routes.push(route);
    }
    order(&mut layers, &routes, points);
    let tall = |point: usize| if point < count { BOX.1 } else { PASSAGE };
    let height = |layer: &[usize]| layer.iter().map(|point| tall(*point) + GAP.1).sum::<f64>() - GAP.1;
    let highest = layers.iter().map(|layer| height(layer)).fold(0.0, f64::max);
    let mut places = vec![(0.0, 0.0); points];
    for (at, layer) in layers.iter().enumerate() {
        let mut y = MARGIN + (highest - height(layer)) / 2.0;
        for point in layer {
            places[*point] = (MARGIN + at as f64 * (BOX.0 + GAP.0), y);
            y += tall(*point) + GAP.1;
        }
    }
    let middle = |point: usize| places[point].1 + tall(point) / 2.0;
    let lines = routes.iter().map(|route| {
        let (from, to) = (route[0], route[route.len() - 1]);
        let mut line = vec![(places[from].0 + BOX.0, middle(from))];
        for passage in &route[1..route.len() - 1] {
            let (x, _) = places[*passage];
            line.extend([(x, middle(*passage)), (x + BOX.0, middle(*passage))]);
        }
        line.push((places[to].0, middle(to)));
        line
    });
    let lines = lines.collect();
    let width = layers.len() as f64 * (BOX.0 + GAP.0) - GAP.0;
    let size = (width.max(0.0) + 2.0 * MARGIN, highest.max(0.0) + 2.0 * MARGIN);
    places.truncate(count);
    Layout { boxes: places, lines, size }
}

/// One more than the layer of the last node that feeds it; 0 for a node that nothing feeds.
fn layers(count: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    let mut layer = vec![0; count];
    // As many rounds as the longest chain has edges; a circle would go on for ever.
    for _ in 0..count {
        let mut moved = false;
        for (from, to) in edges {
            let wanted: usize = layer[*from] + 1;
            if layer[*to] < wanted && wanted < count {
                layer[*to] = wanted;
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    layer
}

/// Orders each layer by the mean place of the neighbours in the layer before, then after, in turn.
fn order(layers: &mut [Vec<usize>], routes: &[Vec<usize>], points: usize) {
    let mut before: Vec<Vec<usize>> = vec![Vec::new(); points];
    let mut after: Vec<Vec<usize>> = vec![Vec::new(); points];
    for two in routes.iter().flat_map(|route| route.windows(2)) {
        after[two[0]].push(two[1]);
        before[two[1]].push(two[0]);
    }
    let mut place: Vec<f64> = vec![0.0; points];
    let put = |layer: &[usize], place: &mut Vec<f64>| {
        let middle = (layer.len() as f64 - 1.0) / 2.0;
        layer.iter().enumerate().for_each(|(at, point)| place[*point] = at as f64 - middle);
    };
    layers.iter().for_each(|layer| put(layer, &mut place));
    for sweep in 0..SWEEPS {
        let forth = sweep % 2 == 0;
        let neighbours = if forth { &before } else { &after };
        let mut turn: Vec<usize> = (0..layers.len()).collect();
        if !forth {
            turn.reverse();
        }
        for at in turn {
            let wanted: BTreeMap<usize, f64> = layers[at]
                .iter()
                .map(|point| {
                    let near = &neighbours[*point];
                    let sum: f64 = near.iter().map(|other| place[*other]).sum();
                    (*point, if near.is_empty() { place[*point] } else { sum / near.len() as f64 })
                })
                .collect();
            layers[at].sort_by(|a, b| wanted[a].total_cmp(&wanted[b]));
            put(&layers[at], &mut place);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stage_stands_right_of_all_that_it_takes_from() {
        // 0 → 1 → 3, 0 → 2 → 3, 0 → 3
        let edges = [(0, 1), (1, 3), (0, 2), (2, 3), (0, 3)];
        let Layout { boxes, lines, size } = layout(4, &edges);
        for (from, to) in edges {
            assert!(boxes[from].0 + BOX.0 < boxes[to].0, "{boxes:?}");
        }
        assert_eq!(lines[4].len(), 4, "the line over two layers passes through one");
        assert!(size.0 > boxes[3].0 + BOX.0 && size.1 >= boxes[2].1 + BOX.1);
    }

    #[test]
    fn lines_do_not_cross_where_they_need_not() {
        // Two chains written crosswise: 0 → 3, 1 → 2.
        let Layout { boxes, .. } = layout(4, &[(0, 3), (1, 2)]);
        assert_eq!(boxes[0].1 < boxes[1].1, boxes[3].1 < boxes[2].1, "{boxes:?}");
    }

    #[test]
    fn no_stage_and_a_circle_are_no_problem() {
        assert_eq!(layout(0, &[]).boxes, []);
        assert_eq!(layout(2, &[(0, 1), (1, 0)]).boxes.len(), 2);
    }

    proptest! {
        #[test]
        fn boxes_never_overlap(edges in prop::collection::vec((0usize..12, 0usize..12), 0..30)) {
            let edges: Vec<_> = edges.into_iter().filter(|(from, to)| from < to).collect();
            let Layout { boxes, size, .. } = layout(12, &edges);
            for (at, a) in boxes.iter().enumerate() {
                prop_assert!(a.0 + BOX.0 <= size.0 && a.1 + BOX.1 <= size.1);
                for b in &boxes[..at] {
                    let apart = (a.0 - b.0).abs() >= BOX.0 || (a.1 - b.1).abs() >= BOX.1;
                    prop_assert!(apart, "{a:?} {b:?}");
                }
            }
        }
    }
}
