"""The shop's files that a config names → tables of records whose media have not been read yet.

The first half of `preprocess`: reads table files, writes nothing.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from fuserank.artifacts import stage_folder
from fuserank.config import Experiment, Media, Records
from fuserank.errors import ConfigError
from fuserank.files import Folder, folder_of
from fuserank.records import events, links, products, queries
from fuserank.records.flags import with_sessions
from fuserank.records.label_queries import label_queries
from fuserank.records.mapping import column_map
from fuserank.records.media import MediaSource, media_path, store
from fuserank.records.quarantine import Quarantine
from fuserank.records.schema import JUDGMENT, LINK, REVIEW
from fuserank.records.variants import group_variants


def shop_folder(experiment: Experiment) -> Folder:
    """Where the shop's files lie: the generated shop's stage, or records.root.

    Raises:
        ConfigError: neither is given. MissingStageError: `generate` has not run.
    """
    if experiment.records.generate is not None:
        return folder_of(stage_folder(experiment, "generate"))
    if experiment.records.root is None:
        raise ConfigError(
            "records.root is not set.", "Give the folder of the shop's files, e.g. --set records.root=/path/to/shop."
        )
    root = experiment.records.root
    return Folder(root if "://" in root else str(Path(root).expanduser().resolve()))


def read_products(
    records: Records, root: Folder, aside: Quarantine, split: Callable[[str], str], inline: Path
) -> pa.Table:
    """STAGED products, variants grouped where the config says so.

    Args:
        inline: folder for media whose bytes stand in the table itself.

    Raises:
        InputError, ConfigError, EmptyCatalogueError: see records/products.py.
    """
    table, by_product = records.products, records.split.by == "product"
    for field, source in (("images", records.images), ("audio", records.audio)):
        if field in table.map and source is None:
            key = f"records.{field}.source"
            raise ConfigError(f"records.products.map.{field} is set but {key} is not.", f"Give {key}: a folder or zip.")
    columns = column_map(table, products.FIELDS, "products", records.labels)
    key = records.split.key if by_product else None
    staged = products.read_products(
        root,
        table.files,
        columns,
        aside,
        key,
        split if by_product else None,
        _keeper(records, inline),
    )
    if records.group_variants:
        staged, aside.merged = group_variants(staged)
    aside.kept = staged.num_rows
    return staged


def _keeper(records: Records, inline: Path) -> Callable[[bytes], str] | None:
    """Stores media that stand in tables, and says where; None where the config names none."""
    held = any(source is not None and source.source is None for source in (records.images, records.audio))
    return (lambda data: media_path(Path(), store(inline, data)).as_posix()) if held else None


def read_relations(
    records: Records, root: Folder, staged: pa.Table, known: Mapping[str, str], aside: dict[str, Quarantine]
) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Products, rated by their reviews; links between them; the reviews.

    Args:
        known: variants.known_ids of the products, here and below.
    """
    found = [LINK.empty_table()]
    for kind, table in records.links.items():
        columns = column_map(table, links.LINK_FIELDS, f"links.{kind}")
        found.append(links.read_links(root, table.files, columns, kind, aside["links"], known))
    aside["links"].kept = aside["links"].rows_in - aside["links"].rows  # one row may hold many links
    if records.reviews is None:
        return staged, pa.concat_tables(found), REVIEW.empty_table()
    columns = column_map(records.reviews, links.REVIEW_FIELDS, "reviews")
    reviews = links.read_reviews(root, records.reviews.files, columns, aside["reviews"], known)
    aside["reviews"].kept = reviews.num_rows
    return links.rate(staged, reviews), pa.concat_tables(found), reviews


def read_queries(
    records: Records,
    root: Folder,
    staged: pa.Table,
    known: Mapping[str, str],
    linked: pa.Table,
    aside: dict[str, Quarantine],
    split: Callable[[str], str],
    inline: Path,
) -> tuple[pa.Table, pa.Table]:
    """Queries as STAGED_QUERY and their judgments: made from labels, or the shop's own and those of its links."""
    made = records.label_queries
    if made is not None:
        if records.split.by != "product":
            raise ConfigError(
                "records.label_queries needs records.split.by: product.", "Set it, with a product field as key."
            )
        missing = [name for name in made.columns if name not in records.labels]
        if missing:
            raise ConfigError(
                f"records.label_queries.columns: {missing[0]!r} is not in records.labels.", "Add it there."
            )
        asked, judged = label_queries(staged, made.columns, made.required, made.min_products, made.holdout_modulus)
        where = [pa.array(["records.label_queries"] * asked.num_rows), pa.array(range(asked.num_rows), pa.int64())]
        return pa.table([*asked.columns, *where], schema=queries.STAGED_QUERY), judged
    if records.queries is None and not records.link_grades:
        return queries.STAGED_QUERY.empty_table(), JUDGMENT.empty_table()
    if records.split.by != "query":
        raise ConfigError(
            "records.split.by: product cannot split queries with judgments of their own.",
            "Set records.split.by: query, or use records.label_queries.",
        )
    asked, judged = queries.STAGED_QUERY.empty_table(), JUDGMENT.empty_table()
    if records.queries is not None and records.judgments is not None:
        columns = column_map(records.queries, queries.QUERY_FIELDS, "queries")
        asked = queries.read_queries(
            root,
            records.queries.files,
            columns,
            aside["queries"],
            records.split.key,
            split,
            _keeper(records, inline),
            records.split.groups,
        )
        columns = column_map(records.judgments, queries.JUDGMENT_FIELDS, "judgments")
        ids = set(asked["query_id"].to_pylist())
        judged = queries.read_judgments(root, records.judgments.files, columns, aside["judgments"], ids, known)
        aside["queries"].kept, aside["judgments"].kept = asked.num_rows, judged.num_rows
    if records.link_grades:
        more, grades = links.link_judgments(linked, staged, records.link_grades, split, records.split.key == "text")
        asked = pa.concat_tables([asked, pa.Table.from_pylist(more, schema=queries.STAGED_QUERY)]).sort_by("query_id")
        judged = pa.concat_tables([judged, grades]).sort_by([("query_id", "ascending"), ("product_id", "ascending")])
    return asked, judged


def read_events(
    records: Records, root: Folder, known: Mapping[str, str], reviews: pa.Table, aside: Quarantine
) -> pa.Table:
    found = links.review_events(reviews)
    if records.events is None:
        return found
    columns = column_map(records.events, events.FIELDS, "events")
    own = events.read_events(root, records.events.files, columns, aside, known)
    aside.kept = own.num_rows
    own = with_sessions(own, records.session_gap_minutes)
    return pa.concat_tables([own, found]).sort_by("timestamp") if found.num_rows else own


def uses(column: pa.ChunkedArray) -> bool:
    """Whether any row of a column of paths, or of lists of paths, names one."""
    if pa.types.is_list(column.type):
        column = pc.call_function("list_flatten", [column])
    return len(column) > column.null_count


def media(root: Folder, inline: Path, media: Media | None, name: str, used: bool) -> MediaSource | None:
    """Where the media lie; None where no row names one, so that a shop without speech needs no audio file.

    Raises:
        InputError: the folder or zip that the config names is not there.
    """
    if media is None or not used:
        return None
    if media.source is None:
        inline.mkdir(parents=True, exist_ok=True)
        return MediaSource(inline, addressed=True)
    if "://" in media.source:
        return MediaSource(Folder(media.source), "", f"records.{name}.source")
    return MediaSource(root, media.source, f"records.{name}.source")
