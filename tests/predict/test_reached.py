"""What is reached from the default target, and how likely use makes a file; SYNTHETIC references."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_boots import manifest_of

from vmrestorekit.predict.reached import (
    Reached,
    edges_between_files,
    enabled_services,
    likelihood_of_use,
    reached_files,
)
from vmrestorekit.traces.manifest import REFERENCES_SCHEMA, sorted_references

TARGET = "/etc/systemd/system/default.target"
UNITS = "/usr/lib/systemd/system"
CHAIN = [
    (TARGET, "links", f"{UNITS}/graphical.target"),
    (f"{UNITS}/graphical.target", "enables", f"{UNITS}/nginx.service"),
    (f"{UNITS}/nginx.service", "starts", "/usr/sbin/nginx"),
    ("/usr/sbin/nginx", "loads", "/usr/lib/libssl.so.3"),
    ("/usr/lib/libssl.so.3", "links", "/usr/lib/libssl.so.3.1"),
    ("/usr/lib/libssl.so.3.1", "loads", "/usr/lib/libc.so.6"),
    ("/usr/sbin/idle", "loads", "/usr/lib/libidle.so"),
]


def referring(references, files=()):
    """A disk of these files, one block each, that refer to each other like this."""
    disk = manifest_of(range(1, len(files) + 2), [(path, at, 1) for at, path in enumerate(files)])
    table = pl.DataFrame(references, schema=REFERENCES_SCHEMA, orient="row")
    return dataclasses.replace(disk, references=sorted_references(table))


def reached(references):
    return reached_files(referring(references))


class TestReached:
    def test_units_then_programs_then_libraries(self):
        assert reached(CHAIN) == {
            TARGET: (Reached.ENABLED, 0),
            f"{UNITS}/graphical.target": (Reached.ENABLED, 1),
            f"{UNITS}/nginx.service": (Reached.ENABLED, 2),
            "/usr/sbin/nginx": (Reached.STARTED, 3),
            "/usr/lib/libssl.so.3": (Reached.LOADED, 4),
            "/usr/lib/libssl.so.3.1": (Reached.LOADED, 5),  # what a link leads to is reached as the link is
            "/usr/lib/libc.so.6": (Reached.LOADED, 6),
        }

    def test_the_shortest_way_counts(self):
        found = reached([*CHAIN, (f"{UNITS}/nginx.service", "starts", "/usr/lib/libc.so.6")])
        assert found["/usr/lib/libc.so.6"] == (Reached.STARTED, 3)

    @pytest.mark.parametrize(("short", "long"), [("a", "z"), ("z", "a")])
    def test_the_shortest_way_counts_wherever_it_begins(self, short, long):
        found = reached(
            [
                *((TARGET, "enables", f"/{name}.service") for name in (short, long)),
                (f"/{short}.service", "starts", "/end"),
                (f"/{long}.service", "starts", "/between"),
                ("/between", "loads", "/end"),
            ]
        )
        assert found["/end"] == (Reached.STARTED, 2)

    def test_an_index_of_modules_reaches_nothing(self):
        found = reached([*CHAIN, (f"{UNITS}/graphical.target", "needs_module", "/usr/lib/modules/x.ko")])
        assert found == reached(CHAIN)

    def test_circles_end(self):
        circle = [("/usr/lib/libc.so.6", "loads", "/usr/sbin/nginx"), ("/usr/sbin/nginx", "links", TARGET)]
        assert reached([*CHAIN, *circle]) == reached(CHAIN)

    def test_a_service_may_run_as_instances_of_a_template_of_its_name(self):
        template, other = f"{UNITS}/nginx@.service", f"{UNITS}/graphical@.service"
        more = [(template, "starts", "/usr/bin/nginx-ctl"), (other, "starts", "/usr/bin/x")]
        found = reached([*CHAIN, *more, ("/usr/sbin/nginx@.service", "starts", "/usr/bin/x")])
        expected = {template: (Reached.ENABLED, 3), "/usr/bin/nginx-ctl": (Reached.STARTED, 4)}
        assert found == reached(CHAIN) | expected

    @pytest.mark.parametrize(
        "first",
        [
            *("/usr/lib/systemd/systemd", "/bin/sh", "/usr/bin/udevadm"),
            "/lib/systemd/system-generators/postgresql-generator",
        ],
    )
    def test_what_starts_without_a_unit_is_reached_at_once(self, first):
        found = reached([*CHAIN, (first, "loads", "/usr/lib/libcap.so")])
        assert found[first] == (Reached.STARTED, 0)
        assert found["/usr/lib/libcap.so"] == (Reached.LOADED, 1)

    @pytest.mark.parametrize("other", ["/opt/bin/sh", "/usr/bin/shred", "/usr/lib/systemd/systemd-oomd"])
    def test_what_is_only_named_alike_is_not(self, other):
        assert reached([*CHAIN, (other, "loads", "/usr/lib/libcap.so")]) == reached(CHAIN)

    def test_the_target_may_lie_on_another_partition(self):
        assert reached([(f"@root{TARGET}", "enables", "@root/x.service")]) == {
            f"@root{TARGET}": (Reached.ENABLED, 0),
            "@root/x.service": (Reached.ENABLED, 1),
        }

    @pytest.mark.parametrize("references", [[], CHAIN[1:], [("/bin/sh", "loads", "/usr/lib/libc.so.6")]])
    def test_without_a_default_target_nothing_is_known(self, references):
        assert reached(references) == {}


class TestEnabledServices:
    def test_names_without_numbers_instances_and_what_all_have(self):
        enabled = dict.fromkeys(
            [
                f"{UNITS}/{name}"
                for name in (
                    *("postgresql.service", "postgresql@15.service", "php8.service", "nginx.service"),
                    *("systemd-udevd.service", "dbus.service", "getty@.service", "rc-local.service"),
                    *("nginx.socket", "ab.service", "x12.service", "bind@.service"),
                )
            ],
            (Reached.ENABLED, 2),
        )
        enabled[f"{UNITS}/started.service"] = (Reached.STARTED, 3)
        found = enabled_services(enabled)
        assert found == ["bind", "nginx", "php", "postgresql", "postgresql@"]

    def test_of_nothing_nothing(self):
        assert enabled_services({}) == []


class TestEdges:
    FILES = ("/usr/lib/libc.so.6", "/usr/sbin/nginx", f"{UNITS}/nginx.service")

    def test_only_use_between_files_of_the_disk(self):
        found = edges_between_files(
            referring([*CHAIN, ("/usr/sbin/nginx", "loads", self.FILES[0])], self.FILES)
        )
        assert found.dtype == np.int32
        assert found.tolist() == [[1, 0], [2, 1]]

    def test_none(self):
        assert edges_between_files(referring([], self.FILES)).shape == (0, 2)
        assert edges_between_files(referring(CHAIN)).shape == (0, 2)


def use(edges, probability):
    return likelihood_of_use(np.array(edges, np.int32).reshape(-1, 2), np.array(probability, np.float32))


class TestLikelihoodOfUse:
    def test_it_goes_down_a_chain_and_fades(self):
        chain, user, total, users, used = use([[0, 1], [1, 2], [2, 3]], [0.5, 0.1, 0.9, 0]).T
        np.testing.assert_allclose(chain, [0, 0.98 * 0.5, 0.98**2 * 0.5, 0.98 * 0.9], rtol=1e-6)
        np.testing.assert_allclose(user, [0, 0.5, 0.1, 0.9], rtol=1e-6)
        np.testing.assert_allclose(total, [0, 0.5, 0.1, 0.9], rtol=1e-6)
        assert users.tolist() == [0, 1, 1, 1]
        np.testing.assert_allclose(used, [0.1, 0.9, 0, 0], rtol=1e-6)

    def test_of_several_users_the_likeliest_their_sum_and_their_count(self):
        found = use([[0, 3], [1, 3], [2, 3], [2, 0]], [0.2, 0.7, 0.4, 0.3])
        np.testing.assert_allclose(found[3], [0.98 * 0.7, 0.7, 1.3, 3, 0], rtol=1e-6)
        np.testing.assert_allclose(found[2], [0, 0, 0, 0, 0.3], rtol=1e-6)

    def test_many_users_say_no_more_than_some(self):
        edges = [[at, 100] for at in range(100)]
        np.testing.assert_allclose(use(edges, [1.0] * 100 + [0])[100], [0.98, 1, 20, 50, 0], rtol=1e-6)

    def test_a_circle_does_not_feed_itself(self):
        chain = use([[0, 1], [1, 0], [2, 2]], [0.6, 0.2, 0.4])[:, 0]
        np.testing.assert_allclose(chain, [0.98**2 * 0.6, 0.98 * 0.6, 0.98 * 0.4], rtol=1e-6)

    def test_no_edges_no_use(self):
        assert use([], [1.0, 0.5]).tolist() == [[0.0] * 5] * 2
        assert use([], []).shape == (0, 5)

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12), st.data())
    def test_a_chain_is_worth_its_best_beginning(self, edges, data):
        probability = data.draw(st.lists(st.floats(0, 1, width=32), min_size=6, max_size=6))
        best = [0.0] * 6
        for start in range(6):  # along shortest ways: no longer one is better
            steps, here = {}, {start}
            for step in range(1, 7):
                here = {target for source, target in edges if source in here}
                for target in here:
                    steps.setdefault(target, step)
            for target, step in steps.items():
                best[target] = max(best[target], 0.98**step * probability[start])
        np.testing.assert_allclose(use(edges, probability)[:, 0], best, atol=1e-5)
