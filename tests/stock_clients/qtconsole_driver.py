"""A qtconsole without a screen, as a person uses it: a cell, an interrupt, input, a restart. Prints what it shows.

python qtconsole_driver.py KERNELSPEC CODE
"""

import sys
import time

from PyQt6 import QtCore, QtGui, QtTest, QtWidgets
from qtconsole.manager import QtKernelManager
from qtconsole.rich_jupyter_widget import RichJupyterWidget

SECONDS = 60
spec, code = sys.argv[1:]
app = QtWidgets.QApplication([])
manager = QtKernelManager(kernel_name=spec)
manager.start_kernel()
client = manager.client()
client.start_channels()
console = RichJupyterWidget()
console.confirm_restart = False
console.kernel_manager, console.kernel_client = manager, client
console.show()


def shown():
    return console._control.toPlainText()


def until(condition):
    deadline = time.monotonic() + SECONDS
    while not condition():
        app.processEvents(QtCore.QEventLoop.ProcessEventsFlag.AllEvents, 50)
        assert time.monotonic() < deadline, shown()


until(lambda: "In [1]" in shown())
console.execute(code)
until(lambda: "In [2]" in shown())
print(shown())
console.execute("print('be' + 'gun', flush=True)\nwhile True: pass")
until(lambda: "begun" in shown())
console.interrupt_kernel()
until(lambda: "KeyboardInterrupt" in shown() and "In [3]" in shown())
console.execute("input('who? ')")
until(lambda: console._reading)
console._control.moveCursor(QtGui.QTextCursor.MoveOperation.End)
console._control.insertPlainText("me")
QtTest.QTest.keyClick(console._control, QtCore.Qt.Key.Key_Return)
until(lambda: "Out[3]: 'me'" in shown())
console.restart_kernel("", now=True)
until(lambda: "Restarting kernel" in shown() and shown().rstrip().endswith("]:"))
connected = time.monotonic() + 1  # a restarted kernel replies a moment before its outputs are heard
until(lambda: time.monotonic() > connected)
console.execute("'x' in globals()")
until(lambda: ": False" in shown())
client.stop_channels()
manager.shutdown_kernel()
