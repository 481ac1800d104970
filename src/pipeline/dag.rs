//! The graph of stages: who needs whom, and in which order they can run.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
};

use petgraph::{
    Direction,
    algo::kosaraju_scc,
    graph::{DiGraph, NodeIndex},
};

/// Stages and what they take from each other, free of cycles.
///
/// Edges lead from a stage to those that take from it. Building it and every walk over the
/// whole graph take time near to linear in its size and no recursion, so that a chain of ten
/// thousand stages is as good as a wide one.
#[derive(Debug, Clone)]
pub struct Dag {
    graph: DiGraph<String, ()>,
    index: HashMap<String, NodeIndex>,
    order: Vec<NodeIndex>,
}

/// Stages of which each takes from the next, and the last from the first.
pub type Cycle = Vec<String>;

impl Dag {
    /// Builds the graph from stages, in the order of the file, with the stages each takes from.
    ///
    /// A name to take from that is no stage is left out.
    ///
    /// # Errors
    ///
    /// One shortest cycle of every group of stages that depend on each other.
    pub fn new<'a, Upstream>(
        stages: impl IntoIterator<Item = (&'a str, Upstream)>,
    ) -> Result<Self, Vec<Cycle>>
    where
        Upstream: IntoIterator<Item = &'a str>,
    {
        let stages: Vec<_> = stages.into_iter().collect();
        let mut graph = DiGraph::with_capacity(stages.len(), stages.len());
        let mut index = HashMap::with_capacity(stages.len());
        for (name, _) in &stages {
            index.insert((*name).to_owned(), graph.add_node((*name).to_owned()));
        }
        for (name, upstream) in stages {
            for wanted in upstream {
                if let Some(from) = index.get(wanted) {
                    graph.add_edge(*from, index[name], ());
                }
            }
        }
        match order(&graph) {
            Some(order) => Ok(Self { graph, index, order }),
            None => Err(cycles(&graph)),
        }
    }

    /// How many stages there are.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// All stages, each after those it takes from; among stages that are ready, file order.
    pub fn order(&self) -> impl ExactSizeIterator<Item = &str> {
        self.order.iter().map(|node| self.graph[*node].as_str())
    }

    /// The stages that `stage` takes from, in file order; none if there is no such stage.
    pub fn upstream(&self, stage: &str) -> Vec<&str> {
        self.neighbors(stage, Direction::Incoming)
    }

    /// The stages that take from `stage`, in file order; none if there is no such stage.
    pub fn downstream(&self, stage: &str) -> Vec<&str> {
        self.neighbors(stage, Direction::Outgoing)
    }

    /// `stages` and all they need, directly or not, in the order of [`Self::order`].
    pub fn closure<'a>(&self, stages: impl IntoIterator<Item = &'a str>) -> Vec<&str> {
        self.reached(stages, Direction::Incoming)
    }

    /// `stages` and all that takes from them, directly or not, in the order of [`Self::order`].
    pub fn dependents<'a>(&self, stages: impl IntoIterator<Item = &'a str>) -> Vec<&str> {
        self.reached(stages, Direction::Outgoing)
    }

    fn reached<'a>(&self, stages: impl IntoIterator<Item = &'a str>, along: Direction) -> Vec<&str> {
        let mut wanted = vec![false; self.graph.node_count()];
        let mut open: Vec<NodeIndex> =
            stages.into_iter().filter_map(|name| self.index.get(name).copied()).collect();
        while let Some(node) = open.pop() {
            if !std::mem::replace(&mut wanted[node.index()], true) {
                open.extend(self.graph.neighbors_directed(node, along));
            }
        }
        let order = self.order.iter().filter(|node| wanted[node.index()]);
        order.map(|node| self.graph[*node].as_str()).collect()
    }

    /// The stages by depth: first those that take from none, then those that take from these only.
    pub fn layers(&self) -> Vec<Vec<&str>> {
        let mut depth = vec![0; self.graph.node_count()];
        let mut layers: Vec<Vec<&str>> = Vec::new();
        for node in &self.order {
            let above = self.graph.neighbors_directed(*node, Direction::Incoming);
            depth[node.index()] = above.map(|from| depth[from.index()] + 1).max().unwrap_or(0);
            let layer = depth[node.index()];
            if layers.len() <= layer {
                layers.resize(layer + 1, Vec::new());
            }
            layers[layer].push(&self.graph[*node]);
        }
        layers
    }

    fn neighbors(&self, stage: &str, direction: Direction) -> Vec<&str> {
        let Some(node) = self.index.get(stage) else { return Vec::new() };
        let mut found: Vec<_> = self.graph.neighbors_directed(*node, direction).collect();
        found.sort_unstable();
        found.dedup();
        found.into_iter().map(|node| self.graph[node].as_str()).collect()
    }
}

/// Every node after its sources, the lowest index first among the ready ones.
fn order(graph: &DiGraph<String, ()>) -> Option<Vec<NodeIndex>> {
    let sources = |node| graph.neighbors_directed(node, Direction::Incoming).count();
    let mut missing: Vec<usize> = graph.node_indices().map(sources).collect();
    let mut ready: BinaryHeap<Reverse<NodeIndex>> =
        graph.node_indices().filter(|node| missing[node.index()] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(graph.node_count());
    while let Some(Reverse(node)) = ready.pop() {
        order.push(node);
        for next in graph.neighbors(node) {
            missing[next.index()] -= 1;
            if missing[next.index()] == 0 {
                ready.push(Reverse(next));
            }
        }
    }
    (order.len() == graph.node_count()).then_some(order)
}

/// A shortest cycle through the first stage of every strongly connected group, by file order.
fn cycles(graph: &DiGraph<String, ()>) -> Vec<Cycle> {
    let mut groups: Vec<Vec<NodeIndex>> = kosaraju_scc(graph);
    groups.retain(|group| group.len() > 1 || graph.contains_edge(group[0], group[0]));
    for group in &mut groups {
        group.sort_unstable();
    }
    groups.sort_unstable();
    groups.iter().map(|group| shortest_cycle(graph, group[0])).collect()
}

/// The shortest way from `start` along what each stage takes from, back to `start`.
fn shortest_cycle(graph: &DiGraph<String, ()>, start: NodeIndex) -> Cycle {
    let mut came_from: HashMap<NodeIndex, NodeIndex> = HashMap::new();
    let mut open = VecDeque::from([start]);
    while let Some(node) = open.pop_front() {
        let mut sources: Vec<_> = graph.neighbors_directed(node, Direction::Incoming).collect();
        sources.sort_unstable();
        for source in sources {
            if source == start {
                let mut cycle = vec![node];
                while let Some(before) = came_from.get(cycle.last().expect("never empty")) {
                    cycle.push(*before);
                }
                return cycle.into_iter().rev().map(|node| graph[node].clone()).collect();
            }
            if let std::collections::hash_map::Entry::Vacant(entry) = came_from.entry(source) {
                entry.insert(node);
                open.push_back(source);
            }
        }
    }
    unreachable!("a strongly connected group leads back to its first member")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dag(stages: &[(&'static str, &[&'static str])]) -> Result<Dag, Vec<Cycle>> {
        Dag::new(stages.iter().map(|(name, upstream)| (*name, upstream.iter().copied())))
    }

    #[test]
    fn stages_come_after_what_they_take_from_and_else_in_file_order() {
        let dag =
            dag(&[("eval", &["b", "a"]), ("b", &["raw"]), ("other", &[]), ("a", &["raw"]), ("raw", &[])])
                .unwrap();
        assert_eq!(dag.order().collect::<Vec<_>>(), ["other", "raw", "b", "a", "eval"]);
        assert_eq!(dag.upstream("eval"), ["b", "a"]);
        assert_eq!(dag.downstream("raw"), ["b", "a"]);
        assert_eq!(dag.closure(["a"]), ["raw", "a"]);
        assert_eq!(dag.dependents(["a", "other"]), ["other", "a", "eval"]);
        assert_eq!(dag.layers(), [vec!["other", "raw"], vec!["b", "a"], vec!["eval"]]);
        assert!(dag.upstream("nobody").is_empty());
    }

    #[test]
    fn every_separate_cycle_is_found_once_and_is_the_shortest() {
        let cycles = dag(&[
            ("a", &["b"]),
            ("b", &["c", "d"]),
            ("c", &["d"]),
            ("d", &["a"]),
            ("alone", &["alone"]),
            ("free", &["a"]),
        ])
        .unwrap_err();
        assert_eq!(cycles, [vec!["a", "b", "d"], vec!["alone"]]);
    }

    #[test]
    fn a_chain_of_a_hundred_thousand_stages_is_no_problem() {
        let names: Vec<String> = (0..100_000).map(|i| format!("s{i}")).collect();
        let above = |i: usize| (i + 1 < names.len()).then(|| names[i + 1].as_str());
        let dag = Dag::new(names.iter().enumerate().map(|(i, name)| (name.as_str(), above(i)))).unwrap();
        assert_eq!(dag.order().next(), Some("s99999"));
        assert_eq!(dag.closure(["s0"]).len(), 100_000);
        assert_eq!(dag.layers().len(), 100_000);
        let around = |i: usize| Some(names[(i + 1) % names.len()].as_str());
        let cycles =
            Dag::new(names.iter().enumerate().map(|(i, name)| (name.as_str(), around(i)))).unwrap_err();
        assert_eq!(cycles.len(), 1);
        assert_eq!(cycles[0].len(), 100_000);
    }

    proptest! {
        #[test]
        fn the_order_respects_every_edge_and_a_cycle_is_a_cycle(
            edges in proptest::collection::vec((0usize..12, 0usize..12), 0..24)
        ) {
            let names: Vec<String> = (0..12).map(|i| format!("s{i}")).collect();
            let upstream = |i: usize| edges.iter().filter(move |e| e.1 == i).map(|e| names[e.0].as_str());
            match Dag::new((0..12).map(|i| (names[i].as_str(), upstream(i)))) {
                Ok(dag) => {
                    let order: Vec<&str> = dag.order().collect();
                    prop_assert_eq!(order.len(), 12);
                    let at = |name: &str| order.iter().position(|other| *other == name);
                    for (from, to) in &edges {
                        prop_assert!(at(&names[*from]) < at(&names[*to]));
                    }
                }
                Err(cycles) => for cycle in cycles {
                    for (i, stage) in cycle.iter().enumerate() {
                        let next = &cycle[(i + 1) % cycle.len()];
                        prop_assert!(edges.iter().any(|e| names[e.0] == *next && names[e.1] == *stage));
                    }
                }
            }
        }
    }
}
