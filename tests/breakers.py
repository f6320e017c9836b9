"""Cells that break what the kernel needs to reply, by what they break. Each ends at once in a plain Python process."""

_REPLACED = {
    "stdout has no flush": "class Quiet:\n    def write(self, text): return len(text)\nsys.stdout = Quiet()",
    "stdout is None": "sys.stdout = None",
    "stdout is closed": "sys.stdout.close()",
    "stdout is a closed file": "import io; sys.stdout = io.StringIO(); sys.stdout.close()",
    "stderr has no flush": "sys.stderr = object()",
    "stdout and stderr are gone": "del sys.stdout, sys.stderr",
    "stdout's flush raises": "def flush(): raise OSError('no')\nsys.stdout.flush = flush",
    "displayhook": "sys.displayhook = None\nsys.excepthook = None",
    "displayhook of IPython": "get_ipython().displayhook = None",
    "json.dumps": "import json; json.dumps = None",
    "json.loads": "import json; json.loads = lambda *_, **__: 1 / 0",
    "json is mocked": "from unittest import mock; mock.patch('json.dumps').start(); mock.patch('json.loads').start()",
    "json is deleted": "import json; del json.dumps, json.loads",
    "json's encoder": "import json; json.JSONEncoder = json.JSONDecoder = None",
    "hmac": "import hmac; hmac.compare_digest = hmac.HMAC = hmac.new = None",
    "datetime": "import datetime; datetime.datetime = None",
    "uuid and os": "import os, uuid; uuid.uuid4 = os.getpid = os.urandom = None",
    "copy and re": "import copy, re; copy.copy = copy.deepcopy = re.compile = None",
    "time": "import time; time.time = time.monotonic = time.perf_counter = time.sleep = None",
    "threading": "import threading; threading.current_thread = threading.main_thread = threading.Event = None",
    "locks": "import threading; threading.Lock = threading.RLock = threading.Condition = None",
    "asyncio": "import asyncio; asyncio.get_event_loop = asyncio.get_running_loop = asyncio.ensure_future = None",
    "asyncio's tasks": "import asyncio; asyncio.Task = asyncio.Future = asyncio.wait_for = asyncio.sleep = None",
    "queue": "import queue; queue.Queue = queue.Empty = None",
    "zmq": "import zmq; zmq.Socket = zmq.Context = zmq.POLLIN = zmq.NOBLOCK = None",
    "zmq's sockets cannot send": "import zmq; zmq.Socket.send = zmq.Socket.send_multipart = None",
    "traitlets": "import traitlets; traitlets.TraitType.__get__ = None",
    "session cannot send": "get_ipython().kernel.session.send = None",
    "session's key": "get_ipython().kernel.session.key = b'wrong'",
    "session packs nothing": "get_ipython().kernel.session.pack = lambda _: b'{}'",
    "selectors": "import selectors; selectors.EpollSelector.select = lambda *_, **__: []",
    "loops take no callbacks": "import asyncio.base_events; asyncio.base_events.BaseEventLoop.call_soon = lambda *_: 0",
    "loops do not turn": "import asyncio.base_events; asyncio.base_events.BaseEventLoop._run_once = lambda _: None",
    "tornado's loop": "import tornado.ioloop; tornado.ioloop.IOLoop.add_callback = lambda *_, **__: None",
    "zmq's streams": "from zmq.eventloop.zmqstream import ZMQStream\n"
    "ZMQStream.send_multipart = ZMQStream._handle_events = ZMQStream._rebuild_io_state = ZMQStream.flush = None",
    "contextlib and functools": "import contextlib, functools; contextlib.contextmanager = functools.partial = None",
    "inspect": "import inspect; inspect.isawaitable = inspect.iscoroutinefunction = None",
    "logging raises": "import logging; logging.disable(); logging.Logger._log = logging.getLogger = None",
    "traceback": "import traceback; traceback.format_exception = traceback.print_exc = None",
    "linecache": "import linecache; linecache.getlines = linecache.cache = None\n1 / 0",
    "contextvars": "import contextvars; contextvars.ContextVar = contextvars.copy_context = None",
    "tables of the kernel": "kernel = get_ipython().kernel\n"
    "kernel.msg_queue = None; kernel.shell_handlers = {}; kernel.control_handlers = {}",
    "types": "import types; types.FunctionType = types.MethodType = types.CodeType = None",
    "ultratb": "import IPython.core.ultratb as tb; tb.VerboseTB.structured_traceback = None\n1 / 0",
    "collections": "import collections; collections.deque = collections.OrderedDict = None",
    "heapq": "import heapq; heapq.heappush = heapq.heappop = None",
    "threads do not start": "import threading; threading.Thread.start = threading.Thread.run = lambda self: None",
    "weakref": "import weakref; weakref.ref = weakref.WeakSet = weakref.WeakKeyDictionary = None",
    "select": "import select; select.epoll = select.poll = select.select = None",
    "open": "import builtins; builtins.open = builtins.getattr = None",
}

_BUILTINS = {
    f"builtins.{name}": f"import builtins; builtins.{name} = None"
    for name in "len print isinstance getattr hasattr dict list str type __import__ Exception BaseException".split()
} | {
    "builtins.len is deleted": "import builtins; del builtins.len",
    "builtins.len is wrong": "import builtins; builtins.len = lambda _: -1",
    "builtins.print is slow": "import builtins, time; builtins.print = lambda *a, **k: time.sleep(3600)",
    "builtins are cleared": "import builtins; vars(builtins).clear()",
}

_INTERPRETER = {
    "SIGINT ignored": "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)",
    "SIGALRM pending": "import signal; signal.alarm(1)",
    "SIGALRM raises": "import signal\ndef ring(*_): raise RuntimeError('ring')\nsignal.signal(signal.SIGALRM, ring)\n"
    "signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)",
    "signal.signal": "import signal; signal.signal = signal.getsignal = None",
    "a blocked SIGINT": "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
    "settrace raises": "def trace(*_): raise RuntimeError('traced')\nsys.settrace(trace)",
    "setprofile raises": "def trace(*_): raise RuntimeError('profiled')\nsys.setprofile(trace)",
    "threads' trace": "import threading\ndef trace(*_): raise RuntimeError('traced')\nthreading.settrace(trace)\n"
    "threading.setprofile(trace)",
    "recursion limit": "import inspect; sys.setrecursionlimit(len(inspect.stack()) + 12)",
    "switch interval": "sys.setswitchinterval(1000)",
    "a gc callback that raises": "import gc; gc.callbacks.append(lambda *_: 1 / 0); gc.freeze()",
    "gc keeps all": "import gc; gc.set_debug(gc.DEBUG_SAVEALL)",
    "decimal": "import decimal; decimal.getcontext().prec = 1; decimal.getcontext().traps[decimal.Inexact] = True",
    "logging filters": "import logging\ndef no(_): raise SystemExit\n"
    "for name in ('', 'asyncio', 'traitlets', 'tornado'): logging.getLogger(name).addFilter(no)",
    "faulthandler ends it": "import faulthandler; faulthandler.dump_traceback_later(0.1, exit=True)",
    "no gc": "import gc; gc.disable(); gc.set_threshold(1)",
    "no modules": "sys.modules.clear()",
    "no module json": "sys.modules['json'] = sys.modules['asyncio'] = None",
    "no sys.path": "sys.path.clear(); sys.path_importer_cache.clear(); sys.meta_path.clear(); sys.path_hooks.clear()",
    "warnings are errors": "import warnings; warnings.simplefilter('error')",
    "warnings": "import warnings; warnings.warn = warnings.showwarning = None",
    "no logging": "import logging; logging.disable(logging.CRITICAL); logging.shutdown()",
    "locale": "import locale, os; os.environ.clear(); locale.setlocale(locale.LC_ALL, 'C')",
    "audit hook": "def hook(event, args):\n    if event.startswith('socket'): raise RuntimeError(event)\n"
    "sys.addaudithook(hook)",
    "int limit": "sys.set_int_max_str_digits(640)",
}

_LOOP = {
    "loop stopped": "import asyncio; asyncio.get_event_loop().stop()",
    "loop closed": "import asyncio\nloop = asyncio.get_event_loop()\ntry: loop.close()\nexcept RuntimeError: pass\n"
    "loop._closed = True",
    "policy has no loop": "import asyncio\nclass Policy(asyncio.DefaultEventLoopPolicy):\n"
    "    def get_event_loop(self): raise RuntimeError('no loop')\nasyncio.set_event_loop_policy(Policy())",
    "no tasks are made": "import asyncio\ndef no(*_, **__): raise RuntimeError('no tasks')\n"
    "asyncio.get_event_loop().set_task_factory(no)",
    "a task that never waits": "import asyncio\nasync def turn():\n    while True: await asyncio.sleep(0)\n"
    "task = asyncio.ensure_future(turn())",
    "loop replaced": "import asyncio; asyncio.set_event_loop(asyncio.new_event_loop())",
    "loop's selector closed": "import asyncio; asyncio.get_event_loop()._selector.close()",
    "loop's tasks cancelled": "import asyncio\nfor task in asyncio.all_tasks(): task.cancel()",
    "loop's queue cleared": "import asyncio; asyncio.get_event_loop()._ready.clear()",
    "IOLoop stopped": "from tornado.ioloop import IOLoop; IOLoop.current().stop()",
    "IOPub thread stopped": "get_ipython().kernel.iopub_thread.stop()",
    "IOPub socket closed": "get_ipython().kernel.iopub_socket.close()",
    "shell socket closed": "get_ipython().kernel.shell_stream and get_ipython().kernel.shell_stream.close()",
    "control socket closed": "get_ipython().kernel.control_stream.close()",
    "zmq context ended": "import zmq; zmq.Context.instance().destroy(0)",
}

_IPYTHON = {
    "hooks removed": "get_ipython().events.callbacks = {name: [] for name in get_ipython().events.callbacks}",
    "hooks unregistered": "for made in get_ipython().events.callbacks.values(): made.clear()",
    "events None": "get_ipython().events = None",
    "a hook that raises": "get_ipython().events.register('post_run_cell', lambda *_: 1 / 0)\n"
    "get_ipython().events.register('post_execute', lambda *_: 1 / 0)",
    "run_cell": "get_ipython().run_cell = get_ipython().run_cell_async = None",
    "should_run_async": "get_ipython().should_run_async = None",
    "display_pub None": "get_ipython().display_pub = None",
    "kernel None": "get_ipython().kernel.shell = None",
    "do_execute": "get_ipython().kernel.do_execute = None",
    "transform_cell": "get_ipython().input_transformer_manager = None",
    "history_manager": "get_ipython().history_manager = None",
    "user_ns cleared": "get_ipython().user_ns.clear()",
    "user_ns replaced": "get_ipython().user_ns = {}",
    "globals cleared": "globals().clear()",
    "an AST transformer that empties": "import ast\nclass Empty(ast.NodeTransformer):\n"
    "    def visit_Module(self, node): node.body = []; return node\nget_ipython().ast_transformers.append(Empty())",
    "an input transformer that raises": "get_ipython().input_transformers_cleanup.append(lambda lines: 1 / 0)",
    "an input transformer that empties": "get_ipython().input_transformers_post.append(lambda lines: ['pass\\n'])",
    "__builtins__ replaced": "globals()['__builtins__'] = {}",
    "__builtins__ None": "__builtins__ = None",
    "control thread stopped": "get_ipython().kernel.control_thread.stop()",
    "no comm manager": "get_ipython().kernel.comm_manager = None",
    "custom exc": "get_ipython().set_custom_exc((Exception,), lambda *a, **k: 1 / 0)\n1 / 0",
    "guest": "sys.modules.pop('rlm_guest'); del get_ipython().kernel.rlm_guest",
    "guest's functions": "for module in [made for name, made in sys.modules.items() if name.startswith('rlm_guest')]:\n"
    "    for name in dir(module):\n"
    "        if name[0] != '_': setattr(module, name, None)",
    "reset": "%reset -f",
    "showtraceback": "get_ipython().showtraceback = get_ipython()._showtraceback = None\n1 / 0",
    "names deleted": "del llm_query, llm_query_batched, FINAL, FINAL_VAR, SHOW_VARS, context, answer, get_ipython",
}

_PROCESS = {
    "fd 1 and 2": "import os\nnull = os.open(os.devnull, os.O_RDWR)\nos.dup2(null, 1); os.dup2(null, 2)",
    "fd 0 to 2 closed": "import os; os.closerange(0, 3)",
    "all files closed": "import os; os.closerange(3, 1000)",
    "folder deleted": "import os, shutil, tempfile\n"
    "folder = tempfile.mkdtemp(); os.chdir(folder); shutil.rmtree(folder)",
    "no open files": "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))",
    "no memory": "import resource; resource.setrlimit(resource.RLIMIT_AS, (1, 1))",
    "no CPU time": "import resource; resource.setrlimit(resource.RLIMIT_CPU, (1, 1))\nwhile True: pass",
    "exit": "import os; os._exit(0)",
    "no threads": "import resource; resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))",
    "no file size": "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))",
    "atexit": "import atexit; atexit.register(lambda: 1 / 0); atexit._run_exitfuncs()",
    "do_shutdown": "get_ipython().kernel.do_shutdown(False)",
    "a fork goes on": "import os; os.fork()",
    "a shell kills it": "!kill -9 $PPID",
    "abort": "import os; os.abort()",
    "stopped": "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
    "a fork lives on": "import os, time\nif os.fork() == 0: time.sleep(0.2)",
    "a fork waits": "import os, time\nif os.fork() == 0: time.sleep(3600)",
    "a fork raises": "import os\nif os.fork() == 0: raise SystemExit",
    "segmentation fault": "import ctypes; ctypes.string_at(0)",
    "a thread holds the lock of print": "import threading, time\ndef hold(lock):\n    with lock: time.sleep(3600)\n"
    "for stream in (sys.stdout, sys.stderr):\n    threading.Thread(target=hold, args=(stream._buffer_lock,)).start()\n"
    "time.sleep(0.1)",
    "a thread holds the import lock": "import _imp, threading, time\ndef hold():\n"
    "    _imp.acquire_lock(); time.sleep(3600)\n"
    "threading.Thread(target=hold).start(); time.sleep(0.1)",
    "a thread that lives on": "import threading, time; threading.Thread(target=time.sleep, args=(3600,)).start()",
    "a thread that prints": "import threading, time\ndef chatter():\n"
    "    while True: print('.', end=''); time.sleep(0.001)\n"
    "threading.Thread(target=chatter, daemon=True).start()",
    "threads are killed": "import ctypes, threading\nfor thread in threading.enumerate():\n"
    "    if thread is not threading.current_thread():\n"
    "        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))",
}

GROUPS = {
    "modules": _REPLACED,
    "builtins": _BUILTINS,
    "interpreter": _INTERPRETER,
    "loop": _LOOP,
    "ipython": _IPYTHON,
    "process": _PROCESS,
}
BREAKERS = {
    name: code if code.startswith("%") else f"import sys\n{code}"
    for group in GROUPS.values()
    for name, code in group.items()
}
EMPTIED = {"user_ns cleared", "globals cleared", "reset"}
"""Of the cell's own will its variables are gone."""
