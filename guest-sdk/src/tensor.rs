//! Tensors: typed and shaped, in the guest's memory or, until somebody looks, only in the host's.

use std::cell::OnceCell;
use std::ops::Range;
use std::rc::Rc;

use crate::element::{Datatype, Element};
use crate::error::{Error, Result};
use crate::host::Handle;

/// Elements of one type in row-major order, with the length of each axis.
///
/// An input is a handle to memory of the host: its elements cross into the guest when [`Tensor::data`]
/// is first called, and not at all if the tensor is only handed on to a graph.
///
/// ```
/// use modelet_guest::Tensor;
///
/// let rows = Tensor::new([2, 3], vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0])?;
/// assert_eq!(rows.shape(), [2, 3]);
/// assert_eq!(rows.row(1)?, [4.0, 5.0, 6.0]);
/// assert!(Tensor::new([2, 3], vec![true]).is_err());
/// # Ok::<(), modelet_guest::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Tensor<T: Element> {
    /// What it is called where it came from, for errors.
    name: Option<Rc<str>>,
    shape: Vec<usize>,
    content: Content<T>,
}

#[derive(Debug, Clone)]
enum Content<T: Element> {
    Guest(Vec<T>),
    Host(Rc<Handle>, OnceCell<Fetched<T>>),
}

/// What came from the host: as bytes where elements are looked at in place.
#[derive(Debug, Clone)]
enum Fetched<T> {
    Bytes(Vec<u8>),
    Elements(Vec<T>),
}

impl<T: Element> Tensor<T> {
    /// A tensor of these elements.
    ///
    /// # Errors
    /// When `shape` has another number of elements than there are.
    pub fn new(shape: impl Into<Vec<usize>>, elements: Vec<T>) -> Result<Self> {
        let shape = shape.into();
        let wanted = shape.iter().try_fold(1usize, |product, axis| product.checked_mul(*axis));
        if wanted != Some(elements.len()) {
            let given = elements.len();
            return Err(Error::failed(format!(
                "{given} elements are no tensor of shape {shape:?}"
            )));
        }
        Ok(Self { name: None, shape, content: Content::Guest(elements) })
    }

    /// A tensor of one axis.
    pub fn vector(elements: Vec<T>) -> Self {
        Self { name: None, shape: vec![elements.len()], content: Content::Guest(elements) }
    }

    /// A tensor of no axes: one element.
    pub fn scalar(element: T) -> Self {
        Self { name: None, shape: Vec::new(), content: Content::Guest(vec![element]) }
    }

    /// The length of each axis; none for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements in row-major order.
    pub fn data(&self) -> &[T] {
        match &self.content {
            Content::Guest(elements) => elements,
            Content::Host(handle, fetched) => {
                let fetched = fetched.get_or_init(|| Fetched::from_bytes(handle.data()));
                fetched.elements()
            }
        }
    }

    /// The elements in row-major order, as a vector of their own.
    pub fn into_data(self) -> Vec<T> {
        match self.content {
            Content::Guest(elements) => elements,
            Content::Host(..) => self.data().to_vec(),
        }
    }

    /// The elements of row `index` of axis 0.
    ///
    /// # Errors
    /// When there is no such row.
    pub fn row(&self, index: usize) -> Result<&[T]> {
        let length = self.shape.iter().skip(1).product::<usize>();
        let row = (index < self.shape.first().copied().unwrap_or(0))
            .then(|| self.data().get(index * length..(index + 1) * length));
        row.flatten()
            .ok_or_else(|| self.error(format!("there is no row {index} in shape {:?}", self.shape)))
    }

    /// Rows `rows` of axis 0 as a tensor. Those of a tensor in the host stay there, without a copy,
    /// unless they are texts or bytes, which differ in length.
    ///
    /// ```
    /// use modelet_guest::{Graph, Result, Tensor};
    ///
    /// /// Runs a graph over eight rows at a time.
    /// fn in_parts(graph: &Graph, x: &Tensor<f32>) -> Result<Vec<Tensor<f32>>> {
    ///     let starts = (0..x.shape()[0]).step_by(8);
    ///     starts
    ///         .map(|start| {
    ///             let part = x.rows(start..(start + 8).min(x.shape()[0]))?;
    ///             graph.run().input("x", &part).compute()?.take("y")
    ///         })
    ///         .collect()
    /// }
    /// # let x = Tensor::new([3, 2], vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0])?;
    /// # assert_eq!(x.rows(1..3)?, Tensor::new([2, 2], vec![3.0, 4.0, 5.0, 6.0])?);
    /// # let _ = in_parts;
    /// # Ok::<(), modelet_guest::Error>(())
    /// ```
    ///
    /// # Errors
    /// When there are no such rows.
    pub fn rows(&self, rows: Range<usize>) -> Result<Self> {
        let there = self.shape.first().copied().unwrap_or(0);
        if rows.start > rows.end || rows.end > there {
            let shape = &self.shape;
            return Err(self.error(format!("there are no rows {rows:?} in shape {shape:?}")));
        }
        let shape: Vec<_> =
            std::iter::once(rows.len()).chain(self.shape.iter().skip(1).copied()).collect();
        let content = match &self.content {
            Content::Host(handle, _) if T::DATATYPE != Datatype::Bytes => {
                let handle = handle.rows(rows.start, rows.len());
                let handle = handle.map_err(|error| self.error(error.message()))?;
                Content::Host(Rc::new(handle), OnceCell::new())
            }
            _ => {
                let row = self.shape.iter().skip(1).product::<usize>();
                let elements = self.data().get(rows.start * row..rows.end * row);
                Content::Guest(elements.unwrap_or_default().to_vec())
            }
        };
        Ok(Self { name: self.name.clone(), shape, content })
    }

    /// The same elements as a tensor that lies in the host: one that several runs of a graph are given is
    /// then copied there once, and not for each of them.
    ///
    /// ```
    /// use modelet_guest::Tensor;
    ///
    /// let mask = Tensor::new([1, 3], vec![1i64; 3])?.in_host()?;
    /// assert_eq!((mask.shape(), mask.data()), (&[1, 3][..], &[1, 1, 1][..]));
    /// # Ok::<(), modelet_guest::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the host takes no more tensors.
    pub fn in_host(&self) -> Result<Self> {
        let content = Content::Host(Rc::new(self.to_handle()?), OnceCell::new());
        Ok(Self { name: self.name.clone(), shape: self.shape.clone(), content })
    }

    /// An error about this tensor: the caller's if it is an input, the model's otherwise.
    pub fn error(&self, message: impl std::fmt::Display) -> Error {
        match &self.name {
            Some(name) => Error::bad_input(&**name, message),
            None => Error::failed(message),
        }
    }

    /// The tensor a handle stands for.
    ///
    /// # Errors
    /// When its elements are of another type, or not elements of that type at all.
    pub(crate) fn from_handle(handle: Handle, name: Option<&str>) -> Result<Self> {
        let handle = handle.wanted_as(T::DATATYPE);
        let (given, wanted) = (handle.datatype(), T::DATATYPE);
        let wrong = |message: String| match name {
            Some(name) => Error::bad_input(name, message),
            None => Error::failed(message),
        };
        if given != wanted {
            return Err(wrong(format!("its datatype is {given}, wanted is {wanted}")));
        }
        let fetched = OnceCell::new();
        if T::CHECKED {
            let elements = T::decode(&handle.data()).map_err(wrong)?;
            let _ = fetched.set(Fetched::Elements(elements));
        }
        let shape = handle.shape();
        Ok(Self {
            name: name.map(Rc::from),
            shape,
            content: Content::Host(Rc::new(handle), fetched),
        })
    }

    /// A handle to it: the one it came with, or a new one over a copy of the elements.
    pub(crate) fn to_handle(&self) -> Result<Handle> {
        match &self.content {
            Content::Host(handle, _) => Ok(handle.share()),
            Content::Guest(elements) => {
                Handle::make(T::DATATYPE, &self.shape, &T::encode(elements))
            }
        }
    }
}

impl<T: Element> PartialEq for Tensor<T>
where
    T: PartialEq,
{
    fn eq(&self, other: &Self) -> bool {
        self.shape == other.shape && self.data() == other.data()
    }
}

impl<T: Element> Fetched<T> {
    /// Bytes that were checked if they have to be; only those of `CHECKED` types can be wrong.
    fn from_bytes(bytes: Vec<u8>) -> Self {
        match T::view(&bytes) {
            Some(_) => Self::Bytes(bytes),
            // An allocation that happens not to be aligned, which the usual allocators never give.
            None => Self::Elements(T::decode(&bytes).unwrap_or_default()),
        }
    }

    fn elements(&self) -> &[T] {
        match self {
            Self::Bytes(bytes) => T::view(bytes).unwrap_or_default(),
            Self::Elements(elements) => elements,
        }
    }
}

/// What may be an input of `infer`: a tensor.
#[doc(hidden)]
pub trait Input: Sized {
    const DATATYPE: Datatype;
    fn from_handle(name: &str, handle: Handle) -> Result<Self>;
}

impl<T: Element> Input for Tensor<T> {
    const DATATYPE: Datatype = T::DATATYPE;
    fn from_handle(name: &str, handle: Handle) -> Result<Self> {
        Self::from_handle(handle, Some(name))
    }
}

/// What `infer` may give: a tensor, or a tuple of up to six.
#[doc(hidden)]
pub trait Outputs {
    const DATATYPES: &'static [Datatype];
    fn into_handles(self) -> Vec<Result<Handle>>;
}

impl<T: Element> Outputs for Tensor<T> {
    const DATATYPES: &'static [Datatype] = &[T::DATATYPE];
    fn into_handles(self) -> Vec<Result<Handle>> {
        vec![self.to_handle()]
    }
}

macro_rules! tuples {
    ($($(($type:ident $place:tt))+),*) => {$(
        impl<$($type: Element),+> Outputs for ($(Tensor<$type>,)+) {
            const DATATYPES: &'static [Datatype] = &[$($type::DATATYPE),+];
            fn into_handles(self) -> Vec<Result<Handle>> {
                vec![$(self.$place.to_handle()),+]
            }
        }
    )*};
}
tuples!(
    (A 0),
    (A 0)(B 1),
    (A 0)(B 1)(C 2),
    (A 0)(B 1)(C 2)(D 3),
    (A 0)(B 1)(C 2)(D 3)(E 4),
    (A 0)(B 1)(C 2)(D 3)(E 4)(F 5)
);

#[cfg(feature = "ndarray")]
mod arrays {
    use ndarray::{Array, ArrayView, ArrayViewD, Dimension, IxDyn};

    use super::*;

    impl<T: Element> Tensor<T> {
        /// The elements as an array of `ndarray`, without a copy.
        ///
        /// # Errors
        /// Never for the tensors of this crate, whose elements fill their shape.
        pub fn view(&self) -> Result<ArrayViewD<'_, T>> {
            Ok(ArrayView::from_shape(IxDyn(&self.shape), self.data())?)
        }
    }

    impl<T: Element, D: Dimension> From<Array<T, D>> for Tensor<T> {
        fn from(array: Array<T, D>) -> Self {
            let shape = array.shape().to_vec();
            let (elements, offset) = match array.is_standard_layout() {
                true => array.into_raw_vec_and_offset(),
                false => (array.iter().cloned().collect(), None),
            };
            let (start, length) = (offset.unwrap_or(0), shape.iter().product());
            let elements = match start == 0 && elements.len() == length {
                true => elements,
                false => elements.into_iter().skip(start).take(length).collect(),
            };
            Self { name: None, shape, content: Content::Guest(elements) }
        }
    }
}
