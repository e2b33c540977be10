"""The alerts and the dashboard, held against a daemon that has worked and a real database.

Every metric and every label that a query names is one that the daemon shows, with a value that it
can have; and every SQL statement runs as the role that a dashboard would have.
"""

import json
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import asyncpg
import promql_parser as promql
import pytest
import yaml

from tests.daemon.posts import open_mailbox
from tests.daemon.running import open_scene
from tests.daemon.scraping import (
    Samples,
    converse,
    open_gateway,
    open_window,
    poll_seldom,
    show_metrics,
    work,
)

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parent.parent
ALERTS = yaml.safe_load((ROOT / "monitoring" / "alerts.yml").read_text("utf-8"))
DASHBOARD = json.loads((ROOT / "monitoring" / "dashboard.json").read_text("utf-8"))
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
ROLES = files("migrations").joinpath("roles.sql").read_text("utf-8")

SCRAPED = {"job", "instance"}
"""Labels that Prometheus adds."""
PROMETHEUS = {"up"}
"""Series that are Prometheus' own."""
ONLY = re.compile(r"[\w|]+")
"""A pattern that is a list of words."""
TEMPLATE = re.compile(r"{{ \$(?:value(?: \| humanize\w*)?|labels\.(\w+)) }}")


def panel_targets() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every query of the dashboard, with the name of its panel."""
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", target


def expand(expression: str) -> str:
    """Return PromQL as Grafana would ask it, with all accounts chosen."""
    return expression.replace("$__rate_interval", "5m").replace("$account", "zego")


QUERIES = {rule["alert"]: rule["expr"] for rule in RULES} | {
    name: expand(target["expr"]) for name, target in panel_targets() if "expr" in target
}
STATEMENTS = {name: target["rawSql"] for name, target in panel_targets() if "rawSql" in target}


class Reading:
    """What one query names."""

    def __init__(self, expression: str) -> None:
        self.selectors: list[promql.VectorSelector] = []
        self.groupings: list[tuple[set[str], promql.Expr]] = []
        promql.walk(promql.parse(expression), self._visit)

    def _visit(self, node: promql.Expr) -> bool:
        if isinstance(node, promql.VectorSelector):
            self.selectors.append(node)
        if isinstance(node, promql.AggregateExpr) and node.modifier is not None:
            self.groupings.append((set(node.modifier.labels), node.expr))
        return True


def labels_of(samples: Samples, series: str) -> dict[str, set[str]]:
    """Return the labels of a series, and the values of each."""
    found: dict[str, set[str]] = {}
    for name, pairs in samples:
        if name == series:
            for key, text in pairs:
                found.setdefault(key, set()).add(text)
    return found


def find_mistakes(expression: str, samples: Samples) -> Iterator[str]:
    """Find what a query names and the daemon does not show."""
    reading = Reading(expression)
    names = {name for name, _ in samples} | PROMETHEUS
    for selector in reading.selectors:
        if selector.name not in names:
            yield f"no series {selector.name}"
            continue
        yield from _find_wrong_labels(selector, labels_of(samples, selector.name))
    for wanted, inner in reading.groupings:
        below = {one.name for one in Reading(str(inner)).selectors if one.name is not None}
        for name in below:
            lacking = wanted - labels_of(samples, name).keys() - SCRAPED
            yield from (f"{name} has no {label}" for label in sorted(lacking))


def _find_wrong_labels(
    selector: promql.VectorSelector, shown: dict[str, set[str]]
) -> Iterator[str]:
    for matcher in selector.matchers.matchers:
        if matcher.name in SCRAPED:
            continue
        values = shown.get(matcher.name)
        if values is None:
            yield f"{selector.name} has no {matcher.name}"
        elif matcher.op == promql.MatchOp.Equal and matcher.value not in values:
            yield f"{selector.name}: {matcher.name} is never {matcher.value}"
        elif matcher.op == promql.MatchOp.Re and ONLY.fullmatch(matcher.value):
            never = set(matcher.value.split("|")) - values - {""}
            yield from (f"{selector.name}: {matcher.name} is never {one}" for one in sorted(never))


# --- what needs no daemon


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_an_alert_says_what_is_wrong_how_bad_it_is(
    rule: dict[str, Any],
) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert re.fullmatch(r"\d+m", rule["for"])
    notes = rule["annotations"]
    assert len(notes["summary"]) > 20
    assert len(notes["description"]) > 20


def test_where_alerts_say_to_read_on_there_is_something() -> None:
    books = {tuple(rule["annotations"]["runbook"].split("#")) for rule in RULES}
    assert {(file, anchor) for file, anchor in books if anchor not in anchors(ROOT / file)} == set()


def anchors(path: Path) -> set[str]:
    """Return what can be linked to in a document."""
    titles = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_a_sentence_of_an_alert_names_only_what_its_query_keeps(rule: dict[str, Any]) -> None:
    summary = rule["annotations"]["summary"]
    named = {label for label in TEMPLATE.findall(summary) if label}
    assert "{{" not in TEMPLATE.sub("", summary)
    groupings = Reading(rule["expr"]).groupings
    kept = set.union(*(labels for labels, _ in groupings)) if groupings else SCRAPED | {"loop"}
    assert named <= kept


def test_alerts_have_names_of_their_own() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names) > 10


def test_panels_have_places_of_their_own_and_the_data_sources_are_chosen() -> None:
    panels = DASHBOARD["panels"]
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)
    variables = {f"${{{variable['name']}}}" for variable in DASHBOARD["templating"]["list"]}
    chosen = {panel["datasource"]["uid"] for panel in panels}
    chosen |= {target["datasource"]["uid"] for _, target in panel_targets()}
    assert chosen == {"${prometheus}", "${database}"} <= variables
    assert all(panel["description"] for panel in panels)


def test_a_query_that_is_wrong_is_found() -> None:
    series = frozenset({("account", "a"), ("outcome", "Done")})
    samples = {("calls_total", series): 1.0}
    wrong = {
        "call_total": "no series call_total",
        'calls_total{room="a"}': "calls_total has no room",
        'calls_total{outcome="done"}': "calls_total: outcome is never done",
        'rate(calls_total{outcome=~"Done|Gnoe"}[5m])': "calls_total: outcome is never Gnoe",
        "sum by (account, room) (calls_total)": "calls_total has no room",
    }
    assert {query: list(find_mistakes(query, samples)) for query in wrong} == {
        query: [mistake] for query, mistake in wrong.items()
    }
    good = 'sum by (account, job) (rate(calls_total{outcome="Done", account=~".+"}[5m])) > 1'
    assert list(find_mistakes(good, samples)) == []


# --- what a daemon shows


async def test_every_query_asks_for_what_a_daemon_shows(postgres_url: str, tmp_path: Path) -> None:
    async with open_scene(postgres_url, tmp_path) as scene:
        show_metrics(scene)
        poll_seldom(scene)
        open_gateway(scene)
        async with open_mailbox(scene) as mailbox, open_window(mailbox.daemon) as window:
            await work(scene, mailbox)
            await converse(scene, window)
            samples = await window.wait_for("orchestrator_listen_up", 1)
    mistakes = {name: list(find_mistakes(query, samples)) for name, query in QUERIES.items()}
    assert {name: found for name, found in mistakes.items() if found} == {}


# --- what the database answers


@pytest.mark.parametrize("name", STATEMENTS)
async def test_every_statement_runs_as_a_reader(postgres_url: str, name: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute(ROLES)
        await connection.execute("SET ROLE orchestrator_reader")
        await connection.fetch(expand_sql(STATEMENTS[name]))
    finally:
        await connection.close()


def expand_sql(statement: str) -> str:
    """Return SQL as Grafana would ask it, with two accounts chosen."""
    chosen = statement.replace("$account", "'zego','tencent'")
    expanded = re.sub(
        r"\$__timeFilter\((\w+)\)", r"\1 BETWEEN now() - interval '3 hours' AND now()", chosen
    )
    assert "$" not in expanded
    return expanded
