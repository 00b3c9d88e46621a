//! Titles are found as people write them, and what is wrong is told.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that is wrong may panic")]

use modelet_guest::testing::{Host, Inputs, Installed, call};
use modelet_guest::{Model as _, Result, Tensor};
use recommender::Recommender;

/// A host whose graph recommends the film after the last one that was liked.
fn host() -> Installed {
    let next = |inputs: &mut Inputs| {
        let history = inputs.take::<i64>("history")?;
        assert_eq!(inputs.take::<i64>("k")?.shape(), [1]);
        let next = history.data().iter().max().unwrap() + 1;
        let ids = Tensor::new([1, 1], vec![next])?;
        Ok(vec![("top_scores", Tensor::new([1, 1], vec![0.5f32])?.into()), ("top_ids", ids.into())])
    };
    let titles = "Heat (1995)\nSabrina (1995)\nSabrina (1954)\nBrazil (1985)\n";
    Host::new().asset("titles.txt", titles).graph("model.onnx", next).install()
}

fn after(liked: &[&str], k: i64) -> Result<Vec<String>> {
    let mut model = Recommender::load_model()?;
    let liked = Tensor::vector(liked.iter().map(|title| (*title).to_owned()).collect());
    let inputs = vec![("liked", liked.into()), ("k", Tensor::vector(vec![k]).into())];
    Ok(call(&mut model, inputs)?.take("title")?.into_data())
}

#[test]
fn a_title_needs_neither_its_year_nor_its_capitals() {
    let _host = host();
    assert_eq!(after(&["heat"], 1).unwrap(), ["Sabrina (1995)"]);
    assert_eq!(after(&[" Sabrina"], 1).unwrap(), ["Sabrina (1954)"]);
    assert_eq!(after(&["Heat (1995)", "SABRINA (1954)"], 1).unwrap(), ["Brazil (1985)"]);
}

#[test]
fn what_is_not_known_or_too_much_is_the_callers_mistake() {
    let _host = host();
    for (liked, k, words) in [
        (&["Heat", "Alien"][..], 1, "input 'liked': 'Alien' is none of the 4 films"),
        (&[], 1, "input 'liked': there is no film"),
        (&["Heat"], 0, "input 'k': it is 0; from 1 to 100"),
        (&["Heat"], 101, "input 'k': it is 101"),
    ] {
        let error = after(liked, k).unwrap_err();
        assert!(error.is_bad_input());
        assert!(error.to_string().starts_with(words), "{error}");
    }
}
