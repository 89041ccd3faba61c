//! `DOWNLOAD_URL`: one download template or several.

use super::template::{DownloadTemplate, TemplateError};

/// The places of crate files, the preferred one first. Invariant: there is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DownloadTemplates {
    /// The template that clients are redirected to.
    pub(crate) first: DownloadTemplate,
    others: Vec<DownloadTemplate>,
}

impl DownloadTemplates {
    /// Reads templates that are separated by spaces.
    ///
    /// # Errors
    /// The first text that is no template, and why.
    pub(crate) fn parse(text: &str) -> Result<Self, (String, TemplateError)> {
        let parse =
            |text: &str| DownloadTemplate::parse(text).map_err(|error| (text.to_owned(), error));
        let mut texts = text.split(' ').filter(|text| !text.is_empty());
        let first = texts
            .next()
            .ok_or_else(|| (text.to_owned(), TemplateError::NotAUrl))?;
        Ok(Self {
            first: parse(first)?,
            others: texts.map(parse).collect::<Result<_, _>>()?,
        })
    }

    /// All templates, in the order in which they are tried.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &DownloadTemplate> {
        std::iter::once(&self.first).chain(&self.others)
    }
}
