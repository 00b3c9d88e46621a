//! Mistakes in a model are told at the token that is wrong.

#[test]
fn mistakes_are_told_where_they_are() {
    trybuild::TestCases::new().compile_fail("tests/compile-fail/*.rs");
}
