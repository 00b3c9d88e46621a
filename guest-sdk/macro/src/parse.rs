//! Reading what an author wrote; every error points at the token that is wrong.

use proc_macro2::Span;
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned as _;
use syn::{
    Attribute, Error, Expr, FnArg, ImplItem, ImplItemFn, ItemImpl, LitStr, Pat, Token, Type,
};
use syn::{GenericArgument, PathArguments, Result, ReturnType};

/// `#[model(…)]`.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) task: Option<LitStr>,
    pub(crate) batch: bool,
}

/// What `infer` says of the model.
pub(crate) struct Parsed {
    pub(crate) inputs: Vec<(Type, Declared)>,
    pub(crate) outputs: Vec<Declared>,
    /// What `infer` gives when it succeeds.
    pub(crate) given: Type,
}

/// The name and the shape of a tensor.
pub(crate) struct Declared {
    pub(crate) name: LitStr,
    pub(crate) shape: Vec<i64>,
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut options = Self::default();
        while !input.is_empty() {
            let key: syn::Ident = input.parse()?;
            match key.to_string().as_str() {
                "batch" => options.batch = true,
                "task" => {
                    input.parse::<Token![=]>()?;
                    options.task = Some(input.parse()?);
                }
                _ => {
                    let text = "unknown option; there are `batch` and `task = \"…\"`";
                    return Err(Error::new(key.span(), text));
                }
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(options)
    }
}

/// Reads the model off its block, and takes this crate's attributes from it.
pub(crate) fn model(block: &mut ItemImpl) -> Result<Parsed> {
    if let Some((_, path, _)) = &block.trait_ {
        return Err(Error::new(path.span(), "a model is a plain `impl` block, not one of a trait"));
    }
    if !block.generics.params.is_empty() {
        return Err(Error::new(block.generics.span(), "a model has no generic parameters"));
    }
    let place = block.self_ty.span();
    let infer = function(block, "infer", place, "fn infer(&mut self, …) -> Result<…>")?;
    // Both before any error, so that no attribute of ours stays behind for the compiler to wonder about.
    let outputs = outputs(infer);
    let inputs = inputs(infer);
    let given = given(infer);
    let load = function(block, "load", place, "fn load() -> Result<Self>")?;
    if let Some(argument) = load.sig.inputs.first() {
        let text = "`load` takes nothing: it reads `assets` and `config`, and loads graphs";
        return Err(Error::new(argument.span(), text));
    }
    let (outputs, inputs, given) = (outputs?, inputs?, given?);
    let count = match &given {
        Type::Tuple(tuple) => tuple.elems.len(),
        _ => 1,
    };
    if count != outputs.len() {
        let text = format!(
            "`infer` gives {count} tensor(s), but {} #[output(\"name\", [shape])] stand above it",
            outputs.len()
        );
        return Err(Error::new(given.span(), text));
    }
    unique(inputs.iter().map(|(_, declared)| &declared.name))?;
    unique(outputs.iter().map(|declared| &declared.name))?;
    Ok(Parsed { inputs, outputs, given })
}

fn function<'a>(
    block: &'a mut ItemImpl,
    name: &str,
    place: Span,
    form: &str,
) -> Result<&'a mut ImplItemFn> {
    let functions = block.items.iter_mut().filter_map(|item| match item {
        ImplItem::Fn(function) => Some(function),
        _ => None,
    });
    let mut functions = functions.filter(|function| function.sig.ident == name);
    let function = functions.next();
    function.ok_or_else(|| Error::new(place, format!("a model needs `{form}`")))
}

/// The inputs, one a parameter behind `&mut self`.
fn inputs(infer: &mut ImplItemFn) -> Result<Vec<(Type, Declared)>> {
    let place = infer.sig.ident.span();
    let mut inputs = Vec::new();
    let mut problem = None;
    let mut has_self = false;
    for argument in &mut infer.sig.inputs {
        match argument {
            FnArg::Receiver(_) => has_self = true,
            FnArg::Typed(argument) => match input(argument) {
                Ok(input) => inputs.push(input),
                Err(error) => problem = problem.or(Some(error)),
            },
        }
    }
    match problem {
        Some(error) => Err(error),
        None if !has_self => Err(Error::new(place, "`infer` takes `&mut self`")),
        None => Ok(inputs),
    }
}

fn input(argument: &mut syn::PatType) -> Result<(Type, Declared)> {
    let attributes = take(&mut argument.attrs, "input");
    let Pat::Ident(pattern) = &*argument.pat else {
        return Err(Error::new(argument.pat.span(), "an input is a parameter with a name"));
    };
    let name = pattern.ident.to_string();
    let name = LitStr::new(name.trim_start_matches("r#").trim_start_matches('_'), pattern.span());
    match attributes.as_slice() {
        [attribute] => {
            let parser = |input: ParseStream<'_>| declared(input, Some(name.clone()));
            Ok((Type::clone(&argument.ty), attribute.parse_args_with(parser)?))
        }
        [] => {
            let text = "say the shape of this input: #[input([-1, 4])], -1 where it may vary";
            Err(Error::new(argument.span(), text))
        }
        [_, second, ..] => Err(Error::new(second.span(), "an input has one #[input(…)]")),
    }
}

fn outputs(infer: &mut ImplItemFn) -> Result<Vec<Declared>> {
    let attributes = take(&mut infer.attrs, "output");
    if attributes.is_empty() {
        let text = "say what `infer` gives: #[output(\"name\", [-1, 4])] above it, once an output";
        return Err(Error::new(infer.sig.ident.span(), text));
    }
    let parse = |attribute: &Attribute| {
        attribute.parse_args_with(|input: ParseStream<'_>| declared(input, None))
    };
    attributes.iter().map(parse).collect()
}

/// The attributes of this name, taken out.
fn take(attributes: &mut Vec<Attribute>, name: &str) -> Vec<Attribute> {
    let (taken, left) = std::mem::take(attributes)
        .into_iter()
        .partition(|attribute| attribute.path().is_ident(name));
    *attributes = left;
    taken
}

/// `"name", [shape]`, or only the shape where there is a name already.
fn declared(input: ParseStream<'_>, name: Option<LitStr>) -> Result<Declared> {
    let name = match name {
        Some(name) if !input.peek(LitStr) => name,
        _ => {
            let name = input.parse()?;
            input.parse::<Token![,]>()?;
            name
        }
    };
    let shape: syn::ExprArray = input.parse()?;
    let shape = shape.elems.iter().map(axis).collect::<Result<_>>()?;
    Ok(Declared { name, shape })
}

/// The length of an axis, or -1.
fn axis(expression: &Expr) -> Result<i64> {
    let text = "the length of an axis is a number, or -1 where it may vary";
    let wrong = || Error::new(expression.span(), text);
    let (sign, literal) = match expression {
        Expr::Unary(syn::ExprUnary { op: syn::UnOp::Neg(_), expr, .. }) => (-1, &**expr),
        literal => (1, literal),
    };
    let Expr::Lit(syn::ExprLit { lit: syn::Lit::Int(number), .. }) = literal else {
        return Err(wrong());
    };
    match sign * number.base10_parse::<i64>()? {
        length if length >= -1 => Ok(length),
        _ => Err(wrong()),
    }
}

/// The `T` of `-> Result<T>`.
fn given(infer: &ImplItemFn) -> Result<Type> {
    let wrong = |span| Error::new(span, "`infer` gives `Result<Tensor<…>>`, or a tuple of tensors");
    let ReturnType::Type(_, output) = &infer.sig.output else {
        return Err(wrong(infer.sig.ident.span()));
    };
    let Type::Path(path) = &**output else { return Err(wrong(output.span())) };
    let last = path.path.segments.last().filter(|segment| segment.ident == "Result");
    let Some(PathArguments::AngleBracketed(arguments)) = last.map(|segment| &segment.arguments)
    else {
        return Err(wrong(output.span()));
    };
    match arguments.args.first() {
        Some(GenericArgument::Type(given)) => Ok(given.clone()),
        _ => Err(wrong(output.span())),
    }
}

fn unique<'a>(names: impl Iterator<Item = &'a LitStr>) -> Result<()> {
    let mut seen = std::collections::HashSet::new();
    for name in names {
        if name.value().is_empty() {
            return Err(Error::new(name.span(), "a tensor's name is not empty"));
        }
        if !seen.insert(name.value()) {
            return Err(Error::new(name.span(), "two tensors have this name"));
        }
    }
    Ok(())
}
