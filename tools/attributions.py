"""Make ``models/diffseg_models/ATTRIBUTION.md`` of the list of collections beside it.

python tools/attributions.py
"""

from __future__ import annotations

import tomllib
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "models" / "diffseg_models"
_HEAD = """# Data that the shipped backbones were trained on

No image is in the package, only weights. They were learnt from slices of these public,
de-identified collections, reduced to 256 × 256 pixels; how many of each is in the backbone's card.
The licences and citations are those in the index of the NCI Imaging Data Commons, release 25, where
the National Cancer Institute states them for every series. Of the collections below {series} CT
series were found in it by their identifiers, at least one of every patient except where it says so;
each has the licence given here. Where another source was read as well, it is named. On the archive:
Clark, K., et al. (2013). The Cancer Imaging Archive: maintaining and operating a public information
repository. *Journal of Digital Imaging* 26, 1045–1057. <https://doi.org/10.1007/s10278-013-9622-7>

"""


def page(listed: str) -> str:
    """Return the page for the content of ``collections.toml``."""
    entries = tomllib.loads(listed)["collection"]
    lines = (
        f"- **{entry['name']}**, [{entry['licence']}]({entry['licence_url']}). {entry['citation']} "
        f"<https://doi.org/{entry['doi']}>{' ' + entry['also'] if 'also' in entry else ''}\n"
        for entry in entries
    )
    return _HEAD.format(series=sum(entry["series"] for entry in entries)) + "".join(lines)


def main() -> None:
    """Write the page."""
    listed = (FOLDER / "collections.toml").read_text(encoding="utf-8")
    (FOLDER / "ATTRIBUTION.md").write_text(page(listed), encoding="utf-8")


if __name__ == "__main__":
    main()
