"""Pictures in a window, where there is a display."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage
from PIL import ImageTk

from uniformer_pose.errors import InputError

Image = npt.NDArray[np.uint8]

_LARGEST = 1000  # pixels, of the longer side


@contextmanager
def window(title: str = "poses") -> Iterator[Callable[[Image], None]]:
    """Inside the context: a function that shows an RGB picture, made smaller where it is large.

    Raises InputError where there is no display. Closing the window ends the run as Ctrl-C does.
    """
    try:
        import tkinter
    except ModuleNotFoundError as error:
        raise InputError("show=true needs Python's tkinter (on Debian: python3-tk); or leave show out") from error
    try:
        root = tkinter.Tk()
    except tkinter.TclError as error:
        raise InputError(f"show=true: there is no display ({error}); leave show out") from error
    root.title(title)
    label = tkinter.Label(root)
    label.pack()
    open_windows = [root]
    root.protocol("WM_DELETE_WINDOW", open_windows.clear)

    def show(image: Image) -> None:
        if not open_windows:
            raise KeyboardInterrupt
        picture = PillowImage.fromarray(image)
        picture.thumbnail((_LARGEST, _LARGEST))
        photo = ImageTk.PhotoImage(picture)
        label.configure(image=photo)
        label.image = photo  # type: ignore[attr-defined]  # Tk keeps no reference of its own
        root.update()

    try:
        yield show
    finally:
        root.destroy()
