"""Which cells of a live notebook run in the kernel that has the keys."""

from __future__ import annotations

import pytest

from rlm_kernel.papermill.own_cells import is_own

STEAL = "import os; print(os.environ)"


@pytest.mark.parametrize(
    "source",
    [
        "%rlm resume --at 3",
        "# go on\n%rlm usage\n",
        "%%rlm -c text\nWhich one?",
        "RLM.resume(rlm_record, at=3)",
        "from rlm import RLM\nresult = RLM.resume(str(rlm_record), at=3)\nprint(result.response)",
        "await RLM(backend='openai').acompletion('a', max_budget=-1)",
        "rlm_mode = 'live'\nbackend = 'openai'\nbackend_kwargs = {'a': [1]}",
    ],
)
def test_a_person_s_magics_parameters_and_calls_of_rlm_run_there(source):
    assert is_own(source)


@pytest.mark.parametrize(
    "source",
    [
        "",
        "def",
        "print(1)" + "(" * 1000,
        "x = 1",
        "RLM = 'a note'\n" + STEAL,
        f"rlm_x = 2; {STEAL}",
        f"# Answers what\n{STEAL}",
        f"%rlm usage\n{STEAL}",
        f"%load_ext evil\n# {STEAL}",
        "%load_ext rlm_magics_of_somebody",
        "%rlmx",
        "get_ipython().rlm_live.run('1')\n" + STEAL,
        "from os import environ",
        "import rlm.x, os",
        "from .rlm import x",
        "import rlm as print",
        "print = RLM.resume",
        "RLM.resume.__globals__",
        "RLM.a.b()",
        "RLM.resume(rlm_record)()",
        "RLM.resume(open('x'))",
        "RLM.resume([x for x in y])",
        "RLM.resume(rlm_record)['x']",
    ],
)
def test_nothing_else_does(source):
    assert not is_own(source)
