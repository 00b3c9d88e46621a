//! Visits every tensor and every node of a model, wherever the schema lets one stand.

use std::collections::BTreeSet;

use super::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, SparseTensorProto,
    TensorProto,
};
use super::{OnnxError, Operator};

/// What is done with each tensor.
type Visit<'a> = &'a mut dyn FnMut(&mut TensorProto) -> Result<(), OnnxError>;

/// Calls `visit` with every tensor of `model`: initializers, sparse ones, attributes, those of
/// subgraphs, functions and training graphs. The order is the same every time.
///
/// Recursion is bounded by [`super::limits::MAX_NESTING`], which the model was checked against.
pub(super) fn tensors(model: &mut ModelProto, visit: Visit<'_>) -> Result<(), OnnxError> {
    if let Some(graph) = &mut model.graph {
        graph_tensors(graph, visit)?;
    }
    for training in &mut model.training_info {
        for graph in [&mut training.initialization, &mut training.algorithm].into_iter().flatten() {
            graph_tensors(graph, visit)?;
        }
    }
    for function in &mut model.functions {
        attribute_tensors(&mut function.attribute_proto, visit)?;
        node_tensors(&mut function.node, visit)?;
    }
    Ok(())
}

fn graph_tensors(graph: &mut GraphProto, visit: Visit<'_>) -> Result<(), OnnxError> {
    graph.initializer.iter_mut().try_for_each(&mut *visit)?;
    sparse_tensors(graph.sparse_initializer.iter_mut(), visit)?;
    node_tensors(&mut graph.node, visit)
}

fn node_tensors(nodes: &mut [NodeProto], visit: Visit<'_>) -> Result<(), OnnxError> {
    nodes.iter_mut().try_for_each(|node| attribute_tensors(&mut node.attribute, visit))
}

fn attribute_tensors(attributes: &mut [AttributeProto], visit: Visit<'_>) -> Result<(), OnnxError> {
    for attribute in attributes {
        // The type field says which value is in use; an engine may look at another, so all are.
        let tensor = attribute.t.as_deref_mut();
        tensor.into_iter().chain(&mut attribute.tensors).try_for_each(&mut *visit)?;
        let sparse = attribute.sparse_tensor.as_deref_mut();
        sparse_tensors(sparse.into_iter().chain(&mut attribute.sparse_tensors), visit)?;
        let graph = attribute.g.as_deref_mut();
        for graph in graph.into_iter().chain(&mut attribute.graphs) {
            graph_tensors(graph, visit)?;
        }
    }
    Ok(())
}

fn sparse_tensors<'a>(
    mut sparse: impl Iterator<Item = &'a mut SparseTensorProto>,
    visit: Visit<'_>,
) -> Result<(), OnnxError> {
    sparse.try_for_each(|sparse| {
        let parts = [&mut sparse.values, &mut sparse.indices];
        parts.into_iter().flatten().try_for_each(&mut *visit)
    })
}

/// Every operator that nodes of `model` use, without the functions the model defines.
pub(super) fn operators(model: &ModelProto) -> BTreeSet<Operator> {
    let mut used = BTreeSet::new();
    // Training graphs do not count: inference runs none of them.
    if let Some(graph) = &model.graph {
        node_operators(&graph.node, &mut used);
    }
    for function in &model.functions {
        node_operators(&function.node, &mut used);
    }
    for function in &model.functions {
        used.remove(&defined_by(function));
    }
    used
}

fn node_operators(nodes: &[NodeProto], used: &mut BTreeSet<Operator>) {
    for node in nodes {
        used.insert(Operator::new(node.domain(), node.op_type()));
        for attribute in &node.attribute {
            for graph in attribute.g.as_deref().into_iter().chain(&attribute.graphs) {
                node_operators(&graph.node, used);
            }
        }
    }
}

fn defined_by(function: &FunctionProto) -> Operator {
    Operator::new(function.domain(), function.name())
}
