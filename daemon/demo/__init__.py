"""The simulated camera: a newcomer sees everything work before a real folder is watched."""

from daemon.demo.play import run_demo

__all__ = ["run_demo"]
