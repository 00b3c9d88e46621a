//! What single operators do to rows: of each that is listed here it is known.

use super::super::proto::{AttributeProto, NodeProto};
use super::{Doubt, Fixed, Known, Length, as_lengths, constant};

/// Element by element, of one input; others are settings.
const UNARY: &[&str] = &[
    "Abs",
    "Acos",
    "Asin",
    "Atan",
    "Cast",
    "Ceil",
    "Celu",
    "Clip",
    "Cos",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Log",
    "Mish",
    "Neg",
    "Not",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Sigmoid",
    "Sign",
    "Sin",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
];

/// Element by element, of inputs that are broadcast to each other.
const BROADCAST: &[&str] = &[
    "Add",
    "And",
    "Div",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Max",
    "Mean",
    "Min",
    "Mod",
    "Mul",
    "Or",
    "PRelu",
    "Pow",
    "Sub",
    "Sum",
    "Where",
    "Xor",
];

/// Over the axes behind the first two of the first input; the others are weights.
const IMAGES: &[&str] = &[
    "AveragePool",
    "Conv",
    "ConvTranspose",
    "DepthToSpace",
    "GlobalAveragePool",
    "GlobalLpPool",
    "GlobalMaxPool",
    "GroupNormalization",
    "InstanceNormalization",
    "LRN",
    "LpPool",
    "MaxPool",
    "SpaceToDepth",
];

/// Over one axis, `axis`, or from it on.
const ALONG: &[(&str, i64)] = &[
    ("Hardmax", -1),
    ("LayerNormalization", -1),
    ("LogSoftmax", -1),
    ("LpNormalization", -1),
    ("Softmax", -1),
    ("TopK", -1),
];

/// Over the axes that are named.
const REDUCE: &[&str] = &[
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
];

/// A node and what is known of its inputs.
pub(super) struct Node<'a> {
    pub(super) node: &'a NodeProto,
    pub(super) inputs: Vec<Known>,
}

impl Node<'_> {
    fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.node.attribute.iter().find(|attribute| attribute.name() == name)
    }

    fn integer(&self, name: &str, otherwise: i64) -> i64 {
        self.attribute(name).map_or(otherwise, AttributeProto::i)
    }

    /// Integers that are an attribute or, in later versions, an input; not both.
    fn integers(&self, attribute: &str, input: usize) -> Option<Vec<i64>> {
        match (self.attribute(attribute), self.inputs.get(input)) {
            (Some(attribute), None) => Some(attribute.ints.clone()),
            (None, Some(_)) => self.constants(input),
            _ => None,
        }
    }

    /// An input of constant integers.
    fn constants(&self, input: usize) -> Option<Vec<i64>> {
        match self.inputs.get(input)? {
            Known::Fixed(fixed) => fixed.integers.clone(),
            _ => None,
        }
    }

    /// The rank of an input with rows.
    fn rows(&self, input: usize) -> Result<usize, Doubt> {
        match self.inputs.get(input) {
            Some(Known::Rows(rank)) if *rank > 0 => Ok(*rank),
            _ => Err("has rows in a place where they are not expected"),
        }
    }

    /// The inputs from `first` on must have nothing to do with rows.
    fn rest_is_fixed(&self, first: usize) -> Result<(), Doubt> {
        match self.inputs.iter().skip(first).all(|input| matches!(input, Known::Fixed(_))) {
            true => Ok(()),
            false => Err("has rows where weights or settings are expected"),
        }
    }

    /// Whether an axis, which counts from the end if negative, is another than the rows.
    fn is_inner(axis: i64, rank: usize) -> bool {
        let rank = rank as i64;
        let axis = if axis < 0 { axis + rank } else { axis };
        (1..rank).contains(&axis)
    }

    /// A node of which no input has rows: what it makes has none either, unless it takes lengths.
    pub(super) fn without_rows(&self) -> Result<Known, Doubt> {
        if self
            .node
            .attribute
            .iter()
            .any(|attribute| attribute.g.is_some() || !attribute.graphs.is_empty())
        {
            return Err("has a graph of its own, which is not looked into");
        }
        let op_type = self.node.op_type();
        if op_type.starts_with("Random") || matches!(op_type, "Bernoulli" | "Multinomial") {
            return Err("makes random values, which follow from no row");
        }
        if self.inputs.iter().any(|input| matches!(input, Known::Lengths(_))) {
            return self.of_lengths();
        }
        if op_type == "Constant" {
            let value = self.attribute("value").and_then(|value| value.t.as_deref());
            return Ok(value.map_or(Known::Fixed(Fixed::default()), constant));
        }
        Ok(Known::Fixed(self.of_fixed()))
    }

    /// What is known of a value that is made of fixed ones.
    fn of_fixed(&self) -> Fixed {
        let ranks: Option<Vec<_>> = self
            .inputs
            .iter()
            .map(|input| match input {
                Known::Fixed(fixed) => fixed.rank,
                _ => None,
            })
            .collect();
        let first = ranks.as_ref().and_then(|ranks| ranks.first().copied());
        let op_type = self.node.op_type();
        if UNARY.contains(&op_type) {
            return Fixed { rank: first, ..Fixed::default() };
        }
        if BROADCAST.contains(&op_type) {
            let rank = ranks.and_then(|ranks| ranks.into_iter().max());
            return Fixed { rank, ..Fixed::default() };
        }
        match op_type {
            "Range" => Fixed { rank: Some(1), ..Fixed::default() },
            "Unsqueeze" => {
                let axes = self.integers("axes", 1).unwrap_or_default();
                let rank = first.map(|rank| rank + axes.len());
                Fixed { rank, one: axes.contains(&0), integers: None }
            }
            "Gather" => {
                let rank = ranks.as_deref().and_then(|ranks| match ranks {
                    [data, indices] => (data + indices).checked_sub(1),
                    _ => None,
                });
                Fixed { rank, ..Fixed::default() }
            }
            _ => Fixed::default(),
        }
    }

    /// A node that computes with lengths, of which some may be the number of rows.
    fn of_lengths(&self) -> Result<Known, Doubt> {
        let lengths: Option<Vec<Vec<Length>>> = self.inputs.iter().map(as_lengths).collect();
        let has_rows =
            |input: &Known| matches!(input, Known::Lengths(all) if all.contains(&Length::Rows));
        let known = match (self.node.op_type(), lengths.as_deref()) {
            ("Concat", Some(parts)) => Some(parts.concat()),
            ("Cast" | "Identity", Some([lengths])) => Some(lengths.clone()),
            ("Squeeze" | "Unsqueeze", _) => self.inputs.first().and_then(as_lengths),
            ("Gather", Some([lengths, places])) => {
                let place = |place: &Length| match place {
                    Length::Is(place) => {
                        let place = if *place < 0 { *place + lengths.len() as i64 } else { *place };
                        lengths.get(usize::try_from(place).ok()?).copied()
                    }
                    _ => None,
                };
                places.iter().map(place).collect()
            }
            ("Mul", Some([one, other])) if one.len() == 1 && other.len() == 1 => {
                match (one.first(), other.first()) {
                    (Some(Length::Rows), Some(Length::Rows)) => None,
                    (Some(Length::Rows), _) | (_, Some(Length::Rows)) => Some(vec![Length::Rows]),
                    _ => Some(vec![Length::Other]),
                }
            }
            _ => None,
        };
        match known {
            Some(lengths) => Ok(Known::Lengths(lengths)),
            None if self.inputs.iter().any(has_rows) => Err("computes with the number of rows"),
            // Lengths of other axes are the same for all rows that share a run.
            None => Ok(Known::Fixed(self.of_fixed())),
        }
    }

    /// A node of which an input has rows.
    pub(super) fn with_rows(&self) -> Result<Known, Doubt> {
        let op_type = self.node.op_type();
        if UNARY.contains(&op_type) {
            self.rest_is_fixed(1)?;
            return Ok(Known::Rows(self.rows(0)?));
        }
        if BROADCAST.contains(&op_type) {
            return self.broadcast();
        }
        if IMAGES.contains(&op_type) {
            self.rest_is_fixed(1)?;
            let rank = self.rows(0)?;
            // Places of the greatest are counted over all rows.
            return match rank >= 3 && self.node.output.len() == 1 {
                true => Ok(Known::Rows(rank)),
                false => Err("has no rows, or counts over all of them"),
            };
        }
        if let Some((_, otherwise)) = ALONG.iter().find(|(name, _)| *name == op_type) {
            self.rest_is_fixed(1)?;
            let rank = self.rows(0)?;
            return match Self::is_inner(self.integer("axis", *otherwise), rank) {
                true => Ok(Known::Rows(rank)),
                false => Err("works along the rows"),
            };
        }
        if REDUCE.contains(&op_type) {
            return self.reduce();
        }
        self.with_rows_of_its_own_kind()
    }

    fn with_rows_of_its_own_kind(&self) -> Result<Known, Doubt> {
        match self.node.op_type() {
            "ArgMax" | "ArgMin" => self.arg(),
            "BatchNormalization" => self.batch_normalization(),
            "Concat" => self.concat(),
            "CumSum" => self.cumulate(),
            "Flatten" => self.flatten(),
            "Gather" => self.gather(),
            "GatherElements" => self.gather_elements(),
            "Gemm" => self.gemm(),
            "MatMul" => self.matmul(),
            "OneHot" => self.one_hot(),
            "Pad" => self.pad(),
            "QuantizeLinear" | "DequantizeLinear" => self.quantize(),
            "Reshape" => self.reshape(),
            "Shape" => self.shape(),
            "Slice" => self.slice(),
            "Split" => self.split(),
            "Squeeze" | "Unsqueeze" => self.squeeze(),
            "Transpose" => self.transpose(),
            _ => Err("is not known to keep rows apart"),
        }
    }

    fn broadcast(&self) -> Result<Known, Doubt> {
        let ranks = self.inputs.iter().filter_map(|input| match input {
            Known::Rows(rank) => Some(*rank),
            _ => None,
        });
        let rank = ranks.clone().max().unwrap_or(0);
        if ranks.clone().any(|other| other != rank) || rank == 0 {
            return Err("broadcasts rows to another rank");
        }
        let stays_inside = |input: &Known| match input {
            Known::Rows(_) => true,
            Known::Fixed(Fixed { rank: Some(other), one, .. }) => {
                *other < rank || (*other == rank && *one)
            }
            _ => false,
        };
        match self.inputs.iter().all(stays_inside) {
            true => Ok(Known::Rows(rank)),
            false => Err("broadcasts something over the rows"),
        }
    }

    fn reduce(&self) -> Result<Known, Doubt> {
        let rank = self.rows(0)?;
        let axes = self.integers("axes", 1).filter(|axes| !axes.is_empty());
        let axes = axes.ok_or("reduces over axes that are not constant")?;
        if !axes.iter().all(|axis| Self::is_inner(*axis, rank)) {
            return Err("reduces over the rows");
        }
        Ok(Known::Rows(if self.integer("keepdims", 1) == 0 { rank - axes.len() } else { rank }))
    }

    fn arg(&self) -> Result<Known, Doubt> {
        let rank = self.rows(0)?;
        if !Self::is_inner(self.integer("axis", 0), rank) {
            return Err("works along the rows");
        }
        Ok(Known::Rows(if self.integer("keepdims", 1) == 0 { rank - 1 } else { rank }))
    }

    fn batch_normalization(&self) -> Result<Known, Doubt> {
        self.rest_is_fixed(1)?;
        match self.integer("training_mode", 0) == 0 && self.node.output.len() == 1 {
            true => Ok(Known::Rows(self.rows(0)?)),
            false => Err("takes the mean over the rows"),
        }
    }

    fn concat(&self) -> Result<Known, Doubt> {
        let rank = self.rows(0)?;
        let alike = self.inputs.iter().all(|input| *input == Known::Rows(rank));
        match alike && Self::is_inner(self.integer("axis", 0), rank) {
            true => Ok(Known::Rows(rank)),
            false => Err("puts something beside the rows"),
        }
    }

    fn cumulate(&self) -> Result<Known, Doubt> {
        let rank = self.rows(0)?;
        let axis = self.constants(1);
        match axis.as_deref() {
            Some([axis]) if Self::is_inner(*axis, rank) => Ok(Known::Rows(rank)),
            _ => Err("may work along the rows"),
        }
    }

    fn flatten(&self) -> Result<Known, Doubt> {
        let rank = self.rows(0)?;
        match self.integer("axis", 1) {
            axis if axis == rank as i64 || Self::is_inner(axis, rank) => Ok(Known::Rows(2)),
            _ => Err("makes one row of all"),
        }
    }

    fn gather(&self) -> Result<Known, Doubt> {
        let axis = self.integer("axis", 0);
        match self.inputs.as_slice() {
            [Known::Fixed(Fixed { rank: Some(rank), .. }), Known::Rows(indices)]
                if axis == 0 && *rank > 0 =>
            {
                Ok(Known::Rows(rank - 1 + indices))
            }
            [Known::Rows(rank), Known::Fixed(Fixed { rank: Some(indices), .. })]
                if Self::is_inner(axis, *rank) =>
            {
                Ok(Known::Rows(rank - 1 + indices))
            }
            _ => Err("may take from other rows"),
        }
    }

    fn gather_elements(&self) -> Result<Known, Doubt> {
        let rank = self.rows(0)?;
        match self.rows(1)? == rank && Self::is_inner(self.integer("axis", 0), rank) {
            true => Ok(Known::Rows(rank)),
            false => Err("may take from other rows"),
        }
    }

    fn gemm(&self) -> Result<Known, Doubt> {
        self.rest_is_fixed(1)?;
        let stays_inside = match self.inputs.get(2) {
            None => true,
            Some(Known::Fixed(Fixed { rank, one, .. })) => {
                rank.is_some_and(|rank| rank < 2 || *one)
            }
            Some(_) => false,
        };
        match self.rows(0)? == 2 && self.integer("transA", 0) == 0 && stays_inside {
            true => Ok(Known::Rows(2)),
            false => Err("multiplies over the rows"),
        }
    }

    fn matmul(&self) -> Result<Known, Doubt> {
        match self.inputs.as_slice() {
            [Known::Rows(rank), Known::Fixed(Fixed { rank: Some(1), .. })] if *rank > 1 => {
                Ok(Known::Rows(rank - 1))
            }
            [Known::Rows(rank), Known::Fixed(Fixed { rank: Some(2), .. })] if *rank > 1 => {
                Ok(Known::Rows(*rank))
            }
            [Known::Rows(one), Known::Rows(other)] if one == other && *one > 2 => {
                Ok(Known::Rows(*one))
            }
            [Known::Fixed(Fixed { rank: Some(2), .. }), Known::Rows(rank)] if *rank > 2 => {
                Ok(Known::Rows(*rank))
            }
            _ => Err("may multiply over the rows"),
        }
    }

    fn one_hot(&self) -> Result<Known, Doubt> {
        self.rest_is_fixed(1)?;
        let rank = self.rows(0)?;
        match Self::is_inner(self.integer("axis", -1), rank + 1) {
            true => Ok(Known::Rows(rank + 1)),
            false => Err("puts an axis before the rows"),
        }
    }

    fn pad(&self) -> Result<Known, Doubt> {
        self.rest_is_fixed(1)?;
        let rank = self.rows(0)?;
        // Beginnings of all axes, then ends.
        let pads = self.integers("pads", 1).filter(|pads| pads.len() == rank * 2);
        let rows = pads.map(|pads| (pads.first().copied(), pads.get(rank).copied()));
        match rows == Some((Some(0), Some(0))) && self.inputs.len() < 4 {
            true => Ok(Known::Rows(rank)),
            false => Err("may add rows"),
        }
    }

    fn quantize(&self) -> Result<Known, Doubt> {
        self.rest_is_fixed(1)?;
        let rank = self.rows(0)?;
        // One scale for all, or one for each place of an inner axis.
        let scale = match self.inputs.get(1) {
            Some(Known::Fixed(Fixed { rank: Some(rank), .. })) => *rank,
            _ => return Err("has a scale of which nothing is known"),
        };
        match scale == 0 || (scale == 1 && Self::is_inner(self.integer("axis", 1), rank)) {
            true => Ok(Known::Rows(rank)),
            false => Err("may have a scale for each row"),
        }
    }

    fn reshape(&self) -> Result<Known, Doubt> {
        self.rows(0)?;
        let shape =
            self.inputs.get(1).and_then(as_lengths).ok_or("has a shape that is not known")?;
        let zero_is_empty = self.integer("allowzero", 0) != 0;
        // Row by row in memory, so that rows stay outermost if the first length alone goes with their
        // number: as it was (0), what is left (-1), or computed from it.
        let outermost = match shape.first() {
            Some(Length::Is(0)) => !zero_is_empty,
            Some(Length::Is(-1) | Length::Rows) => true,
            _ => false,
        };
        let inner = shape.iter().skip(1).all(|length| match length {
            Length::Is(-1) => !matches!(shape.first(), Some(Length::Is(-1))),
            Length::Is(_) | Length::Other => true,
            Length::Rows => false,
        });
        match outermost && inner {
            true => Ok(Known::Rows(shape.len())),
            false => Err("may put rows elsewhere"),
        }
    }

    fn shape(&self) -> Result<Known, Doubt> {
        if self.attribute("start").is_some() || self.attribute("end").is_some() {
            return Err("takes a part of a shape, which is not followed");
        }
        let inner = std::iter::repeat_n(Length::Other, self.rows(0)? - 1);
        Ok(Known::Lengths(std::iter::once(Length::Rows).chain(inner).collect()))
    }

    fn slice(&self) -> Result<Known, Doubt> {
        self.rest_is_fixed(1)?;
        let rank = self.rows(0)?;
        let axes = self.integers("axes", 3).filter(|axes| !axes.is_empty());
        match axes.is_some_and(|axes| axes.iter().all(|axis| Self::is_inner(*axis, rank))) {
            true => Ok(Known::Rows(rank)),
            false => Err("may take some rows only"),
        }
    }

    fn split(&self) -> Result<Known, Doubt> {
        self.rest_is_fixed(1)?;
        let rank = self.rows(0)?;
        match Self::is_inner(self.integer("axis", 0), rank) {
            true => Ok(Known::Rows(rank)),
            false => Err("parts the rows"),
        }
    }

    fn squeeze(&self) -> Result<Known, Doubt> {
        let rank = self.rows(0)?;
        let axes = self.integers("axes", 1).filter(|axes| !axes.is_empty());
        let axes = axes.ok_or("takes axes that are not constant")?;
        let after = match self.node.op_type() {
            "Squeeze" => rank.checked_sub(axes.len()),
            _ => Some(rank + axes.len()),
        };
        let counted_in = rank.max(after.unwrap_or(0));
        match after {
            Some(after)
                if after > 0 && axes.iter().all(|axis| Self::is_inner(*axis, counted_in)) =>
            {
                Ok(Known::Rows(after))
            }
            _ => Err("moves the rows to another axis"),
        }
    }

    fn transpose(&self) -> Result<Known, Doubt> {
        let rank = self.rows(0)?;
        let order = self.attribute("perm").map(|perm| perm.ints.as_slice());
        match order.and_then(|order| order.first()) {
            Some(0) => Ok(Known::Rows(rank)),
            _ => Err("moves the rows to another axis"),
        }
    }
}
