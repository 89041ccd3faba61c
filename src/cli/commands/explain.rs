//! `explain`: what the policy does with a crate or a version, and why.

use std::io;

use semver::VersionReq;

use crate::cli::args::ExplainArguments;
use crate::cli::context::{Context, Failed, Outcome};
use crate::index::ServedIndex;
use crate::policy::{
    AllVersions, DecidedVersion, Mode, OneVersion, VersionReport, version_instead,
};
use crate::prefetch::{CrateSpec, VersionWanted};

/// Prints what the policy says about a crate or a version.
pub(crate) async fn explain(
    arguments: ExplainArguments,
    context: &Context,
) -> Result<Outcome, Failed> {
    let index = context.open_index_on_disk().await?;
    let remedy = "run the server, `prefetch` or `import` first";
    let index = index.ok_or_else(|| Failed::no_index(remedy))?;
    let (reading, name) = (index.clone(), arguments.named.name.clone());
    let versions = context.blocking(move || reading.decisions(&name)).await??;
    let spec = &arguments.named;
    let versions = versions.ok_or_else(|| {
        Failed::incomplete(format!("there is no crate `{}` in the index", spec.name))
    })?;
    let wanted: Vec<&DecidedVersion> = wanted(spec, &versions).collect();
    if wanted.is_empty() {
        let missing = format!("there is no version `{spec}` in the index");
        return Err(Failed::incomplete(missing));
    }
    context.warn_of(&index);
    let printed = if arguments.json {
        print_json(spec, &wanted, context)
    } else {
        print_text(spec, &wanted, (&versions, &index), context)
    };
    Ok(match printed {
        Ok(()) => Outcome::Done,
        Err(_reported) => Outcome::Incomplete,
    })
}

/// The versions that are asked about, in the order of the index.
fn wanted<'v>(
    spec: &'v CrateSpec,
    versions: &'v [DecidedVersion],
) -> impl Iterator<Item = &'v DecidedVersion> {
    versions.iter().filter(|version| match &spec.version {
        VersionWanted::Exactly(exact) => version.version == exact.as_str(),
        // It would not match pre-releases.
        VersionWanted::Highest(all) if *all == VersionReq::STAR => true,
        VersionWanted::Highest(requirement) => requirement.matches(&version.semver),
    })
}

/// Prints what the server answers, on one line.
fn print_json(spec: &CrateSpec, wanted: &[&DecidedVersion], context: &Context) -> io::Result<()> {
    let json = match (&spec.version, wanted) {
        (VersionWanted::Exactly(_), [version, ..]) => {
            serde_json::to_string(&OneVersion::of(version))
        }
        _ => serde_json::to_string(&AllVersions::of(wanted.iter().copied())),
    };
    context.terminal.result(&json?)
}

fn print_text(
    spec: &CrateSpec,
    wanted: &[&DecidedVersion],
    (versions, index): (&[DecidedVersion], &ServedIndex),
    context: &Context,
) -> io::Result<()> {
    let terminal = &context.terminal;
    match index.policy() {
        None => terminal.note("there is no policy: no setting holds or denies anything"),
        Some(settings) if settings.mode == Mode::Audit => {
            terminal.note("POLICY_MODE is audit: this would hold; nothing is changed or refused");
        }
        Some(_) => {}
    }
    for version in wanted {
        terminal.result(&sentence(version))?;
    }
    if let (VersionWanted::Exactly(_), [version, ..]) = (&spec.version, wanted) {
        for line in details(version, versions, index) {
            terminal.result(&line)?;
        }
    }
    Ok(())
}

/// The state and the reason of a version, on one line.
fn sentence(version: &DecidedVersion) -> String {
    let report = VersionReport::of(version);
    let (name, state) = (&version.name, report.state.name());
    let until = report.until.map(|until| format!(" until {until}"));
    let reason = report.reason.map(|reason| format!(": {reason}"));
    let yanked = match report.upstream_yanked {
        true => "; the upstream has yanked it",
        false => "",
    };
    format!(
        "{name} {} is {state}{}{}{yanked}",
        report.version,
        until.unwrap_or_default(),
        reason.unwrap_or_default()
    )
}

/// Everything else about a version, one line each.
fn details(
    version: &DecidedVersion,
    versions: &[DecidedVersion],
    index: &ServedIndex,
) -> Vec<String> {
    let report = VersionReport::of(version);
    let served = match report.served_yanked {
        None => "left out of the index, because its line cannot be edited",
        Some(true) => "yanked",
        Some(false) => "not yanked",
    };
    let enforced = index
        .policy()
        .filter(|settings| settings.mode == Mode::Enforce);
    let is_refused = enforced.is_some_and(|settings| settings.refuses(report.state));
    let download = if is_refused {
        "refused (403)"
    } else {
        "allowed"
    };
    let unknown = || "unknown".to_owned();
    let mut lines = vec![
        format!("  rule: {}", report.rule.unwrap_or("none")),
        format!(
            "  published: {}",
            report.published.map_or_else(unknown, ToString::to_string)
        ),
        format!("  served as: {served}"),
        format!("  download: {download}"),
    ];
    if report.served_yanked != Some(false)
        && let Some(instead) = version_instead(versions, &version.semver)
    {
        let name = &version.name;
        lines.push(format!("  use: cargo update {name} --precise {instead}"));
    }
    if index.policy().is_some() {
        let time = index.policy_time();
        lines.push(format!(
            "  policy time: {}, the last fetch of the index",
            time.map_or_else(unknown, |time| time.to_string())
        ));
    }
    lines
}
