//! `man`: the manual page of the whole program.

use std::io;

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use crate::build_info::VERSION;
use crate::cli::args::Arguments;

/// The page in roff: the program, then a section for each subcommand.
pub(crate) fn manual_page() -> io::Result<Vec<u8>> {
    let mut program = Arguments::command();
    // It gives the subcommands their whole names.
    program.build();
    let page = Man::new(program.clone())
        .manual("Administration")
        .source(format!("crates-io-mirror {VERSION}"));
    let mut roff = Vec::new();
    page.render_title(&mut roff)?;
    page.render_name_section(&mut roff)?;
    page.render_synopsis_section(&mut roff)?;
    page.render_description_section(&mut roff)?;
    page.render_options_section(&mut roff)?;
    roff.extend(extra_of(&page, "SH")?.into_bytes());
    for subcommand in program.get_subcommands() {
        roff.extend(section_of(subcommand)?.into_bytes());
    }
    Ok(roff)
}

/// The section of a subcommand. Its parts become subsections, because sections are for the program.
fn section_of(subcommand: &Command) -> io::Result<String> {
    let page = Man::new(subcommand.clone());
    let mut roff = Vec::new();
    page.render_synopsis_section(&mut roff)?;
    page.render_description_section(&mut roff)?;
    page.render_options_section(&mut roff)?;
    let parts = String::from_utf8_lossy(&roff).replace(".SH ", ".SS ");
    let name = subcommand.get_name().to_uppercase();
    Ok(format!(".SH {name}\n{parts}{}", extra_of(&page, "SS")?))
}

/// The text below the options, with its lines as they are: they are tables and lists.
fn extra_of(page: &Man, macro_name: &str) -> io::Result<String> {
    let mut roff = Vec::new();
    page.render_extra_section(&mut roff)?;
    let text = String::from_utf8_lossy(&roff).into_owned();
    let Some((_heading, lines)) = text.split_once(".SH EXTRA\n") else {
        return Ok(String::new());
    };
    Ok(format!(
        ".{macro_name} DETAILS\n.nf\n{}\n.fi\n",
        lines.trim_end()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_page_has_every_subcommand_and_every_setting() {
        let page = String::from_utf8(manual_page().unwrap()).unwrap();
        assert!(
            page.contains(".TH crates\\-io\\-mirror 1") || page.contains(".TH crates-io-mirror 1"),
            "{page}"
        );
        for subcommand in Arguments::command().get_subcommands() {
            let heading = format!("\n.SH {}\n", subcommand.get_name().to_uppercase());
            assert!(page.contains(&heading), "{heading}");
        }
        for variable in crate::VARIABLES {
            assert!(page.contains(variable), "{variable}");
        }
        assert!(!page.contains("EXTRA"));
    }
}
