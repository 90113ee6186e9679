"""One visitor takes from the others neither memory, nor disk, nor the queue."""

import json
import os
import random
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from crfrnn.data.labels import LabelStyle
from crfrnn.parameters import PRESETS
from crfrnn.web import page, serve, storage
from crfrnn.web.explore import Exploration, Settings
from crfrnn.web.gate import Refused, alias
from crfrnn.web.limits import Limits
from crfrnn.web.shares import Places, surrendered, visitor
from crfrnn.web.storage import BLOCK, Storage
from crfrnn.web.wording import Refusal
from crfrnn.web.workspaces import Drawings, Workspace, Workspaces
from tests.support.server import missing, serving
from tests.support.session import Session
from tests.web.test_expiry import until

MANY, ONE = "127.0.0.2", "127.0.0.3"


class TestVisitor:
    def test_an_address_and_what_one_household_has(self):
        assert visitor(("192.0.2.1", 1)) != visitor(("192.0.2.2", 1))
        assert visitor(("192.0.2.1", 1)) == visitor(("192.0.2.1", 2)) == visitor(("::ffff:192.0.2.1", 3))
        assert visitor(("2001:db8::1", 1)) == visitor(("2001:db8::ffff:1:2:3", 2)) == visitor(("2001:db8::2%eth0", 2))
        assert visitor(("2001:db8::1", 1)) != visitor(("2001:db8:0:1::1", 1))

    @pytest.mark.parametrize("odd", [None, (), ("", 0), ("unknown", 0), ("x" * 10_000, 0)])
    def test_what_is_no_address_is_short(self, odd):
        assert len(visitor(odd)) <= 64


class TestSurrendered:
    def test_whoever_holds_most_gives_the_first_each_time(self):
        """Against the definition, step by step."""
        generator = random.Random(0)
        for _ in range(50):
            left = [(number, generator.choice("abcd"), generator.randrange(1, 2**20)) for number in range(30)]
            for given in surrendered(list(left)):
                totals: dict[str, int] = {}
                for _, owner, size in left:
                    totals[owner] = totals.get(owner, 0) + size
                most = max(totals, key=totals.__getitem__)
                assert given == next(number for number, owner, _ in left if owner == most)
                left = [item for item in left if item[0] != given]
            assert not left


class TestPlaces:
    def test_one_takes_half_and_others_still_enter(self):
        places, held = Places(8), []
        for owner, expected in (("many", 4), ("one", 2), ("two", 1), ("many", 0)):
            entered = 0
            while entered <= 8:
                place = places.one(owner, Refused(429, "-"))
                try:
                    place.__enter__()
                except Refused:
                    break
                held.append(place)
                entered += 1
            assert entered == expected
        for place in held:
            place.__exit__(None, None, None)
        assert not places._held

    def test_a_place_is_given_back_by_what_fails(self):
        places = Places(2)
        for _ in range(5):
            with pytest.raises(ZeroDivisionError), places.one("a", Refused(429, "-")):
                raise ZeroDivisionError


def workspace() -> Workspace:
    exploration = Exploration(np.zeros((80, 80, 3), np.uint8), torch.randn(1, 3, 80, 80))
    made = Workspace("photo", exploration, np.zeros((80, 80), np.uint8), (80, 80), LabelStyle.voc(3))
    made.settling = exploration.run(Settings.of(PRESETS["crfrnn"]))
    return made


class TestMemory:
    def test_many_pictures_of_one_visitor_leave_those_of_others(self):
        kept = Workspaces(megabytes=1)
        kept.most = 4 * workspace().nbytes
        kept.asking = lambda: ONE
        key = kept.add(workspace())
        kept.asking = lambda: MANY
        others = [kept.add(workspace()) for _ in range(40)]
        assert kept.nbytes <= kept.most
        assert kept.find(key).exploration.lattice_nbytes > 0
        with pytest.raises(Refusal):
            kept.find(others[0])

    @pytest.mark.parametrize("room", [2.2, 3.2])
    def test_where_there_is_room_for_two_or_three(self, room):
        """Neither the newest picture, which cannot be given, nor what runs take besides turns it round."""
        kept = Workspaces(megabytes=1)
        kept.most = int(room * workspace().nbytes)
        kept.asking = lambda: ONE
        key = kept.add(workspace())
        kept.asking = lambda: MANY
        for _ in range(5):
            one = workspace()
            one.settling = None
            kept.add(one)
            kept.find(key)
            kept.add(workspace())
        assert kept.nbytes <= kept.most
        assert kept.find(key).owner == ONE

    def test_of_those_who_have_one_each_the_longest_unused_goes(self):
        kept = Workspaces(megabytes=1)
        keys = []
        for number in range(3):
            kept.asking = lambda number=number: f"192.0.2.{9 - number}"
            one = workspace()
            one.exploration.forget()
            kept.most = int(2.5 * one.nbytes)
            keys.append(kept.add(one))
        with pytest.raises(Refusal):
            kept.find(keys[0])
        kept.find(keys[1])

    def test_alone_one_has_all_of_it(self):
        kept = Workspaces(megabytes=1)
        kept.most = 4 * workspace().nbytes
        for _ in range(10):
            kept.add(workspace())
        assert kept.most / 2 < kept.nbytes <= kept.most

    def test_many_drawings_of_one_visitor_leave_those_of_others(self):
        drawings = Drawings(most=100_000)
        drawings.asking = lambda: ONE
        drawings.put("mine", "layer", bytes(10_000))
        drawings.asking = lambda: MANY
        for number in range(1000):
            drawings.put(str(number), "layer", bytes(20_000))
        assert drawings.nbytes <= drawings.most
        assert len(drawings.take("mine")["layer"]) == 10_000
        for number in range(100_000, 101_000):
            drawings.put(str(number), "layer", b"")  # made up
        assert drawings.nbytes <= drawings.most
        assert len(drawings._sent) < 500


class TestDisk:
    def test_files_go_that_whoever_has_most_has_had_for_longest(self, tmp_path):
        (tmp_path / "cat.jpg").write_bytes(bytes(50_000))  # the server's own
        kept = Storage(tmp_path, 0.2)
        for number, owner in enumerate([ONE, *10 * [MANY], None]):
            folder = tmp_path / f"{number:02}"
            folder.mkdir()
            (folder / "a.jpg").write_bytes(bytes(30_000))
            os.utime(folder, (number, number))
            if owner:
                kept.told(f'["{folder}/a.jpg"]'.encode(), owner)
        (tmp_path / "tmpabc").write_bytes(bytes(500_000))  # under way
        kept.tidy()
        left = sorted(path.name for path in tmp_path.iterdir())
        assert left == ["00", "08", "09", "10", "11", "cat.jpg", "tmpabc"]
        assert set(kept._owners) == {"00", "08", "09", "10"} | {f"{n:02}" for n in range(1, 8)} & set(kept._owners)

    def test_whoever_is_told_first_is_the_owner(self, tmp_path):
        kept = Storage(tmp_path, 1)
        kept.told(f"data: {tmp_path}/0f/a.webp and {tmp_path}/downloads-a/labels.png".encode(), ONE)
        kept.told(f"data: {tmp_path}/0f/a.webp".encode(), MANY)
        assert kept._owners == {"0f": ONE, "downloads-a": ONE}

    def test_small_files_weigh_something(self, tmp_path):
        kept = Storage(tmp_path, 0.1)
        for number in range(100):
            (tmp_path / str(number)).mkdir()
            (tmp_path / str(number) / "a").touch()
        kept.tidy()
        assert len(list(tmp_path.iterdir())) <= 100_000 // (2 * BLOCK) + 1


class TestMailboxes:
    @pytest.fixture
    def boxes(self):
        pytest.importorskip("gradio")
        from crfrnn.web.turns import Mailboxes

        queue = SimpleNamespace(event_ids_to_events={}, pending_event_ids_session={})
        queue.event_ids_to_events["e"] = SimpleNamespace(session_hash="waits")
        return Mailboxes(queue, 5)  # type: ignore[arg-type]

    def test_who_waits_or_listens_stays(self, boxes):
        boxes["waits"] = boxes["listens"] = object()
        for number in range(100):
            boxes[f"made up {number}"] = object()
            boxes.of.pending_event_ids_session[f"made up {number}"] = {"id"}
            assert boxes["listens"]
        assert "waits" in boxes
        assert len(boxes) == 5
        assert len(boxes.of.pending_event_ids_session) <= 5

    def test_what_all_wait_for_is_kept(self, boxes):
        for number in range(10):
            boxes.of.event_ids_to_events[number] = SimpleNamespace(session_hash=number)
            boxes[number] = object()
        assert set(range(10)) <= set(boxes)


@pytest.fixture(scope="module")
def server() -> Iterator[tuple]:
    if missing():
        pytest.skip(missing())
    short = pytest.MonkeyPatch()
    short.setattr(serve, "SESSIONS", 5)
    short.setattr(page, "SESSIONS", 20)
    short.setattr(storage, "SETTLE", 0)
    with serving(Limits(pixels=6000, upload_megabytes=1, disk_megabytes=1, waiting=4)) as running:
        yield running
    short.undo()


def photo(shift: int = 0, kilobytes: int = 0) -> bytes:
    file = BytesIO()
    Image.fromarray(np.roll(data.chelsea(), shift, axis=1)[40:140, 60:210]).save(file, "jpeg")
    return file.getvalue() + bytes(1000 * kilobytes)


class TestServer:
    def test_made_up_sessions_push_out_nobody(self, server):
        address, studio, _ = server
        one = Session(address, ONE)
        functions = one.functions()
        key, *_, normalization = one.do(functions["segment_1"], one.upload(photo()), "en", "")
        assert studio.workspaces.find(key).owner == ONE
        for _ in range(30):
            Session(address, MANY).join(functions["translate"], "en", "", 10)
        assert one.do(functions["start_from"], key, "learned", "en")[-1] == normalization == "after"
        assert one.do(functions["scrub"], key, 20, "en")[0]

    def test_only_a_proxy_of_this_machine_says_who_a_visitor_is(self, server):
        address, studio, _ = server
        forged = {"X-Forwarded-For": "192.0.2.9, 2001:db8:7::1"}
        for come_from, expected in ((MANY, MANY), ("127.0.0.1", "2001:db8:7::")):
            one = Session(address, come_from, **forged)
            key = one.do(one.functions()["segment_1"], one.upload(photo()), "en", "")[0]
            assert studio.workspaces.find(key).owner == expected

    def test_a_drawing_is_its_visitors(self, server):
        from crfrnn.web.workspaces import DRAWINGS

        address, studio, _ = server
        one = Session(address, ONE)
        canvas = next(c["id"] for c in json.loads(one.ask("/config")[1])["components"] if c["type"] == "imageeditor")
        fields = {"type": "layer", "index": 0, "id": "d1", "component_id": canvas, "fn_name": "accept_blobs"}
        fields |= {"session_hash": one.name}
        parts = [f'--b\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items()]
        parts.append('--b\r\nContent-Disposition: form-data; name="file"; filename="blob"\r\n\r\nxyz\r\n--b--\r\n')
        kind = {"content-type": "multipart/form-data; boundary=b"}
        before = studio.workspaces.nbytes
        assert one.ask("/gradio_api/component_server", "".join(parts).encode(), **kind)[0] == 200
        assert DRAWINGS._sent["d1"].owner == ONE
        assert studio.workspaces.nbytes == before + DRAWINGS._sent["d1"].nbytes
        assert DRAWINGS.take("d1") == {"layer": b"xyz"}

    def test_choices_by_hand_are_refused_by_name(self, server):
        address, _, _ = server
        one = Session(address, ONE)
        functions = one.functions()
        key = one.do(functions["segment_1"], one.upload(photo()), "en", "")[0]
        for function, sent in (
            ("start_from", [key, "best", "en"]),
            ("start_from", [key, [], "en"]),
            ("scrub", [key, "x", "en"]),
        ):
            with pytest.raises(RuntimeError, match="outside of their range"):
                one.do(functions[function], *sent)

    def test_many_uploads_of_one_visitor_leave_those_of_others(self, server):
        address, _, folder = server
        one, many = Session(address, ONE), Session(address, MANY)

        def sent(session: Session, number: int, kilobytes: int) -> Path:
            name = session.upload(photo(number, kilobytes))["path"]
            return Path(name.replace(alias(folder), str(folder)))

        kept = sent(one, 1, 100)
        files = []
        for number in range(2, 32):
            files.append(sent(many, number, 200))
            assert files[-1].exists()  # nobody is locked out
        assert kept.exists()
        assert [file.exists() for file in files[:20]] == 20 * [False]

    def test_a_visitor_who_waits_is_served_before_the_second_request_of_another(self, server, monkeypatch):
        from crfrnn.web.turns import asking

        address, studio, _ = server
        many, one = Session(address, MANY), Session(address, ONE)
        functions, file, mine = many.functions(), many.upload(photo()), one.upload(photo(5))
        order, go, real = [], threading.Event(), studio.segment

        def held_up(path, language, key=""):
            order.append(asking())
            assert go.wait(60)
            return real(path, language, key)

        monkeypatch.setattr(studio, "segment", held_up)
        sessions = [many.renewed() for _ in range(12)]
        for number, session in enumerate(sessions):
            assert session.join(functions["segment_1"], file, "en", "") == 200
            until(lambda number=number: len(order) == min(2, number + 1))
        assert one.join(functions["segment_1"], mine, "en", "") == 200
        go.set()
        assert one.outcome()
        assert order.index(ONE) <= 3  # behind the two at work and the first that waits
        told = []
        for session in sessions:
            try:
                told.append(bool(session.outcome()))
            except RuntimeError as error:
                told.append(str(error))
        assert told.count(True) == 2 + 4 - 1
        assert told.count("Too many visitors at once: try again in a minute.") == 7
