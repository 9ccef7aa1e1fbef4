"""The seven scenes without a browser."""

import re

import pytest
from test_stepper import every_widget

from vmrestorekit.show.newcomer_picture import SCENES, NewcomerPicture


def test_scenes_come_in_the_order_of_time(restore):
    picture = NewcomerPicture(restore)
    assert len(picture.rows) == len(SCENES)
    assert list(picture.rows) == sorted(picture.rows)
    assert picture.rows[0] == -1


def test_buttons_and_slider_go_from_scene_to_scene(restore):
    picture = NewcomerPicture(restore)
    picture.back_button.click()
    assert picture.scene == 0
    for number, scene in enumerate(SCENES):
        assert picture.scene == number
        assert picture.slider.value == number + 1
        assert f"{number + 1} · {scene.name}" in picture._status.value
        assert picture._picture.value.count('class="vmrk-dots"') == len(scene.flows)
        picture.next_button.click()
    assert picture.scene == len(SCENES) - 1
    picture.slider.value = 2
    assert picture.scene == 1


def test_stores_fill_and_empty_with_the_timeline(restore):
    picture = NewcomerPicture(restore)

    def there():
        return int(re.search(r"(\d+) % there", picture._picture.value)[1])

    seen = []
    for picture.scene in range(len(SCENES)):
        seen.append(there())
    assert seen[0] == 0
    assert seen[-1] == 100
    assert seen == sorted(seen)
    assert "free again" in picture._picture.value
    assert ">empty<" in picture._picture.value  # the write cache, once all is applied


def test_the_media_agent_and_what_moves_are_named(restore):
    picture = NewcomerPicture(restore)
    for name in ("Media agent", "Write cache", ">reads<", ">writes<", ">relocation<", ">apply<"):
        assert name in picture._picture.value
    assert picture._picture.value.count("vmrk-soft)") >= 7  # a head for each arrow


def test_the_dots_can_be_stopped(restore):
    picture = NewcomerPicture(restore)
    assert 'class="vmrk-moving"' in picture._picture.value
    picture.moving.value = False
    assert 'class="vmrk-moving"' not in picture._picture.value


def test_every_control_has_a_label_and_a_tooltip(restore):
    for widget in every_widget(NewcomerPicture(restore)):
        if hasattr(widget, "description") and type(widget).__name__ != "HTML":
            assert widget.description, widget
            assert widget.tooltip, widget


def test_only_a_completed_instant_restore_is_shown(mount):
    with pytest.raises(ValueError, match="expected an instant restore that was completed, got one without"):
        NewcomerPicture(mount)
    with pytest.raises(ValueError, match="timeline: expected a Timeline"):
        NewcomerPicture("restore")
