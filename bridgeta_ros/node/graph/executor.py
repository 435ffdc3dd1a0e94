"""The executor of the node's process."""

from __future__ import annotations

from contextlib import suppress
from time import monotonic

from rclpy.executors import ShutdownException, SingleThreadedExecutor, TimeoutException
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.subscription import Subscription

_INTERVAL = 0.1  # s; how long at most services, timers and events wait while messages come


class MessageExecutor(SingleThreadedExecutor):
    """Runs callbacks in one thread, and while messages come waits for these alone most of the time.

    Before each callback rclpy makes two wait sets of all that a node has. Of this node's hundred entities most are
    services and the events of publishers and subscriptions, which may come once a day; with six cameras at 12 Hz
    waiting for them took more of the processor than all callbacks, and held the interpreter while the network needed
    it. They are waited for when no messages come, and looked at ten times a second when some do.
    """

    def spin(self) -> None:
        """Run callbacks until the executor or the context is shut down. Raises what a callback raises."""
        messages_come = False
        with suppress(ShutdownException):
            while self.context.ok():
                # An answer to a service call may be followed by the next call, which is not to wait.
                while (kind := self._run_next(0 if messages_come else None)) is not None:
                    messages_come |= issubclass(kind, Subscription)
                if messages_come:
                    messages_come = self._run_messages()

    def _run_next(self, timeout: float | None) -> type | None:
        """Run the next callback that becomes ready within a time; return the type of its entity, or None."""
        try:
            task, entity, _ = self.wait_for_ready_callbacks(timeout_sec=timeout)
        except TimeoutException:
            return None
        task()
        task.result()
        return type(entity)

    def _run_messages(self) -> bool:
        """Run the callbacks of subscriptions for a while, or until a while has passed without a message.

        Return whether there were any.
        """
        nodes, any_came = self.get_nodes(), False
        periods = [timer.timer_period_ns / 1e9 for node in nodes for timer in node.timers]
        end = monotonic() + min([_INTERVAL, *periods])
        watched = [s for node in nodes for s in node.subscriptions if s.callback_group.can_execute(s)]
        if not watched:
            return False
        wait_set = rclpy_implementation.WaitSet(len(watched), 0, 0, 0, 0, 0, self.context.handle)
        while (left := end - monotonic()) > 0:
            wait_set.clear_entities()
            for subscription in watched:
                wait_set.add_subscription(subscription.handle)
            wait_set.wait(int(1e9 * left))
            ready = set(wait_set.get_ready_entities("subscription"))
            for subscription in watched:
                if subscription.handle.pointer in ready:
                    with subscription.handle:
                        taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
                    if taken is not None:
                        any_came = True
                        subscription.callback(taken[0])
        return any_came
