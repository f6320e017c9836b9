"""Pictures beside a question: whatever a notebook has of them arrives on the host as the bytes of a file."""

from __future__ import annotations

import hashlib
import io

import PIL.Image
import pytest

from rlm_kernel import types
from rlm_kernel.kernel.guest import questions
from rlm_kernel.types import Image

pytestmark = pytest.mark.anywhere

MAKE = (
    "import io, PIL.Image\n"
    "def file_of(kind, size=(4, 4)):\n"
    "    PIL.Image.new('RGB', size, 'red').save(out := io.BytesIO(), kind)\n"
    "    return out.getvalue()\n"
)
FIGURE = "import matplotlib.figure\nfig = matplotlib.figure.Figure()\nax = fig.add_subplot()\nax.plot([1, 2])\n"
PLOT = "import matplotlib.pyplot as plt\nfig, ax = plt.subplots()\nax.plot([1, 2])\nplt.show()"


def file_of(kind):
    PIL.Image.new("RGB", (4, 4), "red").save(out := io.BytesIO(), kind)
    return out.getvalue()


@pytest.fixture
def session(local_session):
    """Pillow and matplotlib need not be in the images of containers."""
    return local_session


@pytest.fixture
def ask(session, echo):
    """Run a cell that asks, and give back the pictures that arrived."""

    async def images(code):
        cell = await session.run(MAKE + code)
        assert cell.error is None, cell.error
        return echo.queries[-1].images

    return images


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
async def test_bytes_are_taken_by_their_first_ones(ask, kind):
    (image,) = await ask(f"llm_query('a', images=[file_of({kind!r})])")
    assert image.media_type == f"image/{kind.lower()}"
    assert image == Image.of(file_of(kind))


async def test_a_file_in_the_kernel_is_read_there(ask):
    code = (
        "import pathlib\npathlib.Path('x.png').write_bytes(file_of('PNG'))\n"
        "llm_query('a', images=['x.png', pathlib.Path('x.png')])"
    )
    assert [image.data for image in await ask(code)] == [file_of("PNG")] * 2


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (f"{FIGURE}llm_query('a', images=[fig])", "png"),
        (f"{FIGURE}llm_query('a', images=[ax])", "png"),
        ("llm_query('a', images=[PIL.Image.new('RGB', (4, 4))])", "png"),
        ("llm_query('a', images=[PIL.Image.new('L', (4, 4))])", "png"),
        ("from IPython.display import Image\nllm_query('a', images=[Image(file_of('PNG'))])", "png"),
        ("from IPython.display import Image\nllm_query('a', images=[Image(file_of('JPEG'))])", "jpeg"),
        ("from IPython.display import Image\nllm_query('a', images=[Image(file_of('GIF'), format='gif')])", "gif"),
        ("llm_query('a', images=PIL.Image.new('RGB', (4, 4)))", "png"),
        ("llm_query('a', images=[bytearray(file_of('PNG'))])", "png"),
        ("llm_query('a', images=[memoryview(file_of('PNG'))])", "png"),
    ],
)
async def test_what_a_notebook_shows_is_a_picture(ask, code, kind):
    (image,) = await ask(code)
    assert image.media_type == f"image/{kind}"
    PIL.Image.open(io.BytesIO(image.data)).verify()


async def test_a_batch_and_the_async_twins_have_one_list_for_all(ask, echo):
    await ask(
        "png = file_of('PNG')\n"
        "llm_query_batched(['a', 'b'], images=[png, png])\n"
        "await allm_query('c', images=[png])\n"
        "await allm_query_batched(['d'], images=[png])"
    )
    assert [(query.prompts, len(query.images)) for query in echo.queries] == [(("a", "b"), 2), (("c",), 1), (("d",), 1)]


async def test_without_pictures_none_travel(ask):
    assert await ask("llm_query('a')") == ()
    assert await ask("llm_query('a', images=[])") == ()


# -- the figures of a cell


async def test_the_number_of_a_cell_stands_for_the_figures_that_it_showed(session, ask, echo):
    first = await session.run(PLOT)
    second = await session.run("from IPython.display import display\ndisplay(fig)\nfig")
    third = await session.run("1")
    numbers = [cell.execution_count for cell in (first, second)]
    one = await ask(f"llm_query('a', images=[{numbers[0]}])")
    three = await ask(f"llm_query('a', images={numbers})")
    assert (len(one), len(three)) == (1, 3)
    assert {image.media_type for image in (*one, *three)} == {"image/png"}
    nothing = await session.run(f"llm_query('a', images=[{third.execution_count}])")
    assert nothing.error.name == "ValueError"
    assert f"figures are kept of the cells {numbers}" in nothing.error.message


async def test_a_figure_shown_earlier_in_the_same_cell_counts(session, ask):
    before = (await session.run("1")).execution_count
    assert len(await ask(f"{PLOT}\nllm_query('a', images=[{before + 1}])")) == 1


async def test_a_figure_that_is_shown_at_the_end_of_a_cell_belongs_to_it(session, ask):
    cell = await session.run(PLOT.removesuffix("\nplt.show()"))
    assert len(await ask(f"llm_query('a', images=[{cell.execution_count}])")) == 1


async def test_only_the_latest_figures_are_kept(session, ask):
    await session.run("import sys; sys.modules['rlm_guest.repl'].MAX_FIGURE_BYTES = 250")
    cell = await session.run(
        MAKE + "from IPython.display import Image, display\nfor _ in range(9): display(Image(file_of('PNG')))"
    )
    assert 1 <= len(await ask(f"llm_query('a', images=[{cell.execution_count}])")) <= 3


# -- what is refused


@pytest.mark.parametrize(
    "code",
    [
        "llm_query('a', images=['nowhere.png'])",
        "llm_query('a', images=[b'not a picture'])",
        "llm_query('a', images=[b''])",
        "llm_query('a', images=[3.5])",
        "llm_query('a', images=[True])",
        "llm_query('a', images=[None])",
        "llm_query('a', images=['x' * 100_000])",
        "llm_query('a', images=[{'figure': 1}])",
        "from IPython.display import Image\nllm_query('a', images=[Image(url='http://127.0.0.1/x.png')])",
        "open('x.txt', 'w').write('text'); llm_query('a', images=['x.txt'])",
    ],
)
async def test_what_is_no_picture_is_a_type_error_that_names_what_is(session, echo, code):
    cell = await session.run(code)
    assert cell.error.name == "TypeError"
    assert "matplotlib figures, PIL images" in cell.error.message
    assert len(cell.error.message) < 400
    assert echo.queries == []


async def test_too_large_and_too_many_pictures_are_refused_with_their_size(session, echo):
    await session.run(MAKE + "png = file_of('PNG')")
    large = await session.run("llm_query('a', images=[png + bytes(20_000_001)])")
    assert large.error.name == "ValueError"
    assert "make them smaller" in large.error.message
    many = await session.run("llm_query('a', images=[png] * 101)")
    assert many.error.name == "ValueError"
    assert echo.queries == []


@pytest.mark.everywhere
async def test_a_picture_of_many_megabytes_travels_from_everywhere(open_session, echo):
    async with await open_session() as session:
        cell = await session.run("import os\nllm_query('a', images=[b'GIF89a' + os.urandom(15_000_000)])")
    assert cell.error is None, cell.error
    (image,) = echo.queries[-1].images
    assert (image.media_type, image.size, len(image.data)) == ("image/gif", 15_000_006, 15_000_006)
    assert image.sha256 == hashlib.sha256(image.data).hexdigest()


async def test_a_forged_picture_is_dropped(session, echo):
    forged = (
        "import json\nkernel = get_ipython().kernel\n"
        "ask = {'kind': 'llm_query', 'prompts': ['x'], 'model': None, 'batch': False, 'schema': None}\n"
        "kernel.session.send(kernel.iopub_socket, 'comm_msg', {'comm_id': 'rlm-host', 'data': "
        "{'wire': 1, 'op': 'ask', 'id': 'f1'}}, parent=kernel.get_parent('shell'), "
        "buffers=[json.dumps(ask).encode(), b'<script>'])\n"
        "llm_query('still here')"
    )
    assert (await session.run(forged)).value == "'STILL HERE'"
    assert [query.prompts for query in echo.queries] == [("still here",)]


def test_both_ends_have_the_same_limits():
    assert (questions.MAX_IMAGE_BYTES, questions.MAX_IMAGES) == (types.MAX_IMAGE_BYTES, types.MAX_IMAGES)


def test_a_picture_does_not_print_its_bytes():
    assert "data" not in repr(Image.of(file_of("PNG")))
