//! `modelet alias`: the moving pointers to a model's versions.

use modelet_host::names::VersionName;

use super::models::targets_text;
use crate::args::{AliasCommand, AliasListArgs, AliasSetArgs, DryRun, WeightedVersion};
use crate::client::{AliasPlace, Answer, Client};
use crate::documents::Alias;
use crate::failure::Failure;
use crate::out::Out;
use crate::table;

/// The weight of a version that has all calls of its alias.
const WHOLE: u32 = 100;

pub(super) fn run(command: AliasCommand, client: &Client, out: &Out) -> Result<(), Failure> {
    match command {
        AliasCommand::Set(args) => set(&args, client, out),
        AliasCommand::List(args) => list(&args, client, out),
        AliasCommand::Rollback(args) => {
            let place = AliasPlace { model: &args.name, alias: &args.alias };
            let answer = client.roll_back_alias(place, args.dry_run.on)?;
            moved(&answer, place, args.dry_run, out)
        }
        AliasCommand::Remove(args) => {
            let place = AliasPlace { model: &args.name, alias: &args.alias };
            let answer = client.remove_alias(place, args.dry_run.on)?;
            let done = if args.dry_run.on { "would remove" } else { "removed" };
            out.answer(&answer.document, || format!("{done} alias {} of {}", args.alias, args.name))
        }
    }
}

fn set(args: &AliasSetArgs, client: &Client, out: &Out) -> Result<(), Failure> {
    let targets = weigh(&args.targets)?;
    let place = AliasPlace { model: &args.name, alias: &args.alias };
    let answer = client.set_alias(place, &targets, args.if_match.as_deref(), args.dry_run.on)?;
    moved(&answer, place, args.dry_run, out)
}

fn list(args: &AliasListArgs, client: &Client, out: &Out) -> Result<(), Failure> {
    let answer = client.aliases(&args.name)?;
    let aliases: Vec<Alias> = answer.read("/aliases")?;
    out.answer(answer.part("/aliases"), || list_text(&aliases))
}

fn moved(
    answer: &Answer,
    place: AliasPlace<'_>,
    dry_run: DryRun,
    out: &Out,
) -> Result<(), Failure> {
    let alias: Alias = answer.read("")?;
    out.answer(&answer.document, || {
        let verb = if dry_run.on { "would point" } else { "points" };
        let etag = answer.etag.as_ref().map(|etag| format!(" (etag {etag})")).unwrap_or_default();
        let targets = targets_text(&alias.targets);
        table::plain(&format!("{} of {} {verb} at {targets}{etag}", place.alias, place.model))
    })
}

/// The weights as they are sent: one version has everything, several need all of theirs.
fn weigh(targets: &[WeightedVersion]) -> Result<Vec<(VersionName, u32)>, Failure> {
    if let [WeightedVersion { version, weight: None }] = targets {
        return Ok(vec![(version.clone(), WHOLE)]);
    }
    let weighed = |target: &WeightedVersion| {
        target.weight.map(|weight| (target.version.clone(), weight)).ok_or_else(|| {
            Failure::usage(format!("version '{}' has no weight", target.version))
                .remedy("give every one its share of the calls: 1.0.0=90 1.1.0=10")
        })
    };
    targets.iter().map(weighed).collect()
}

fn list_text(aliases: &[Alias]) -> String {
    if aliases.is_empty() {
        return "no aliases".to_owned();
    }
    table::table(
        ["alias", "points at", "etag"],
        aliases
            .iter()
            .map(|alias| [alias.alias.clone(), targets_text(&alias.targets), alias.etag.clone()]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weighed(words: &[&str]) -> Result<Vec<(String, u32)>, Failure> {
        let targets: Vec<_> = words.iter().map(|word| word.parse().unwrap()).collect();
        let weighed = weigh(&targets)?;
        Ok(weighed.into_iter().map(|(version, weight)| (version.to_string(), weight)).collect())
    }

    #[test]
    fn one_version_has_all_calls_and_several_need_weights() {
        assert_eq!(weighed(&["1"]).unwrap(), [("1".to_owned(), 100)]);
        assert_eq!(weighed(&["1=7"]).unwrap(), [("1".to_owned(), 7)]);
        assert_eq!(weighed(&["1=9", "2=1"]).unwrap().len(), 2);
        let failure = weighed(&["1=9", "2"]).unwrap_err();
        assert!(failure.to_string().contains("version '2' has no weight"), "{failure}");
    }

    #[test]
    fn aliases_are_listed_with_what_if_match_needs() {
        let aliases: Vec<Alias> = serde_json::from_value(serde_json::json!([
            { "alias": "live", "targets": [{ "version": "1", "weight": 100 }], "etag": "12" }
        ]))
        .unwrap();
        assert_eq!(list_text(&aliases), "ALIAS  POINTS AT  ETAG\nlive   1          12");
    }
}
