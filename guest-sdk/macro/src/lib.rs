//! The attribute `#[model]` of `modelet-guest`; its documentation is there.

mod parse;

use proc_macro::TokenStream;
use quote::quote;
use syn::parse_macro_input;

use crate::parse::{Declared, Options, Parsed};

/// Makes a model of an `impl` block with `load` and `infer`.
///
/// - `fn load() -> Result<Self>` runs once per instance, with its first call.
/// - `fn infer(&mut self, #[input([-1, 4])] x: Tensor<f32>, …) -> Result<Tensor<f32>>` runs once per
///   call. Each parameter is an input: `#[input(SHAPE)]`, or `#[input("name", SHAPE)]` where callers
///   use another name than the parameter's. A shape is the length of each axis, -1 where it may vary.
/// - `#[output("name", SHAPE)]` on `infer`, once for each output in order; `infer` gives a tensor, or a
///   tuple of tensors.
/// - `#[model(task = "embedding")]` names the standard task it serves; `#[model(batch)]` says that axis 0
///   of every tensor is one batch of independent rows.
///
/// The block may have other functions too.
#[proc_macro_attribute]
pub fn model(options: TokenStream, block: TokenStream) -> TokenStream {
    let options = parse_macro_input!(options as Options);
    let mut block = parse_macro_input!(block as syn::ItemImpl);
    match parse::model(&mut block) {
        Ok(parsed) => expand(&options, &block, &parsed).into(),
        // The block goes along, so that the one mistake is not followed by others about what is missing.
        Err(error) => {
            let error = error.to_compile_error();
            quote!(#error #block).into()
        }
    }
}

fn expand(
    options: &Options,
    block: &syn::ItemImpl,
    Parsed { inputs, outputs, given }: &Parsed,
) -> proc_macro2::TokenStream {
    let model = &block.self_ty;
    let input_specs = inputs.iter().map(|(input, declared)| {
        let Declared { name, shape } = declared;
        quote!(::modelet_guest::TensorSpec {
            name: #name,
            datatype: <#input as ::modelet_guest::Input>::DATATYPE,
            shape: &[#(#shape),*],
        })
    });
    let output_specs = outputs.iter().enumerate().map(|(place, Declared { name, shape })| {
        quote!(::modelet_guest::TensorSpec {
            name: #name,
            datatype: <#given as ::modelet_guest::ModelOutputs>::DATATYPES[#place],
            shape: &[#(#shape),*],
        })
    });
    let output_names = outputs.iter().map(|declared| &declared.name);
    let takes =
        inputs.iter().map(|(input, Declared { name, .. })| quote!(inputs.take::<#input>(#name)?));
    let batch = options.batch;
    let task = match &options.task {
        Some(task) => quote!(::std::option::Option::Some(#task)),
        None => quote!(::std::option::Option::None),
    };
    quote! {
        #block

        impl ::modelet_guest::Model for #model {
            fn signature() -> ::modelet_guest::Signature {
                ::modelet_guest::Signature {
                    inputs: ::std::vec![#(#input_specs),*],
                    outputs: ::std::vec![#(#output_specs),*],
                    batch: #batch,
                    task: #task,
                }
            }

            fn load_model() -> ::modelet_guest::Result<Self> {
                Self::load()
            }

            fn call(
                &mut self,
                #[allow(unused_mut, unused_variables)]
                mut inputs: ::modelet_guest::export::Inputs,
            ) -> ::modelet_guest::Result<::modelet_guest::export::Answer> {
                let outputs: #given = self.infer(#(#takes),*)?;
                ::modelet_guest::export::Answer::new(&[#(#output_names),*], outputs)
            }
        }

        ::modelet_guest::__export!(#model);
    }
}
