"""Draw docs/flow.png, the flow of features and losses in distillation: `python docs/flow.py`."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

TEACHER, ASSISTANT, STUDENT, LABEL, PLAIN = "#5b7fa6", "#c98a2b", "#4f9a6b", "#7a5c99", "#8a8f98"
ROWS = {"teacher": 4.6, "assistant": 2.7, "student": 0.8}
WIDTH, HEIGHT = 1.5, 0.78


def draw_box(axes, x, y, text, colour, width=WIDTH, dashed=False):
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - HEIGHT / 2),
            width,
            HEIGHT,
            boxstyle="round,pad=0.02,rounding_size=0.12",
            facecolor=colour + "22",
            edgecolor=colour,
            linewidth=1.6,
            linestyle="--" if dashed else "-",
        )
    )
    axes.text(x, y, text, ha="center", va="center", fontsize=9.5, color="#1c2733")


def draw_arrow(axes, start, end, colour=PLAIN, style="-|>", dashed=False, bend=0.0, width=1.4):
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle=style,
            mutation_scale=12,
            color=colour,
            linewidth=width,
            linestyle="--" if dashed else "-",
            connectionstyle=f"arc3,rad={bend}",
            shrinkA=0,
            shrinkB=0,
        )
    )


def write_note(axes, x, y, text, colour, size=8.5, **options):
    axes.text(x, y, text, fontsize=size, color=colour, va="center", **({"ha": "center"} | options))


def draw(path: Path) -> None:
    figure = Figure(figsize=(12.5, 6.2), layout="constrained")
    axes = figure.add_subplot()
    t, a, s = ROWS["teacher"], ROWS["assistant"], ROWS["student"]
    half = WIDTH / 2

    draw_box(axes, 0.9, t, "LiDAR sweeps\n+ six images", PLAIN)
    draw_box(axes, 0.9, s, "six images", PLAIN)
    draw_box(axes, 3.1, t, "camera branch,\npillars, fuser", TEACHER)
    draw_box(axes, 3.1, s, "camera branch,\nneck", STUDENT)
    draw_box(axes, 5.1, t, "F$_T$", TEACHER, 0.9)
    draw_box(axes, 5.1, s, "F$_S$", STUDENT, 0.9)
    draw_box(axes, 5.1, a, "assistant", ASSISTANT, 1.4)
    draw_box(axes, 7.2, a, "F$_A$", ASSISTANT, 0.9)
    draw_box(axes, 9.2, t, "decoder, head\n(frozen)", TEACHER, 1.8)
    draw_box(axes, 9.2, 1.75, "the student's\ndecoder and head", STUDENT, 1.8)
    draw_box(axes, 12.0, t, "D$_T$, Z$_T$", TEACHER, 1.2)
    draw_box(axes, 12.0, a, "D$_A$, Z$_A$", ASSISTANT, 1.2)
    draw_box(axes, 12.0, s, "D$_S$, Z$_S$", STUDENT, 1.2)
    draw_box(axes, 14.4, 1.75, "map labels", LABEL, 1.3)

    draw_arrow(axes, (0.9 + half, t), (3.1 - half, t))
    draw_arrow(axes, (0.9 + half, s), (3.1 - half, s))
    draw_arrow(axes, (3.1 + half, t), (5.1 - 0.47, t))
    draw_arrow(axes, (3.1 + half, s), (5.1 - 0.47, s))
    draw_arrow(axes, (5.1 + 0.47, t), (9.2 - 0.92, t))
    draw_arrow(axes, (9.2 + 0.92, t), (12.0 - 0.62, t))
    draw_arrow(axes, (5.1, t - 0.41), (5.1, a + 0.41))
    draw_arrow(axes, (5.1, s + 0.41), (5.1, a - 0.41), dashed=True)
    write_note(axes, 4.42, 1.75, "no gradient\nback to F$_S$", PLAIN)
    draw_arrow(axes, (5.1 + 0.72, a), (7.2 - 0.47, a))
    draw_arrow(axes, (7.2 + 0.47, a), (9.2 - 0.92, 1.95), ASSISTANT)
    draw_arrow(axes, (5.1 + 0.47, s), (9.2 - 0.92, 1.55), STUDENT)
    draw_arrow(axes, (9.2 + 0.92, 1.95), (12.0 - 0.62, a), ASSISTANT)
    draw_arrow(axes, (9.2 + 0.92, 1.55), (12.0 - 0.62, s), STUDENT)

    draw_arrow(axes, (7.2, t - 0.02), (7.2, a + 0.41), ASSISTANT, "<|-|>", width=2)
    write_note(axes, 7.2 + 0.62, (a + t) / 2 + 0.2, "(1+$\\epsilon$) d(a, b)", ASSISTANT)
    draw_arrow(axes, (7.2, a - 0.41), (7.2, 1.2), ASSISTANT, "<|-|>", width=2)
    write_note(axes, 6.42, 1.95, "(1+1/$\\epsilon$)\nd(b, c)", ASSISTANT)
    draw_arrow(axes, (12.0, t - 0.41), (12.0, a + 0.41), ASSISTANT, "<|-|>", width=2)
    write_note(axes, 12.75, (t + a) / 2, "(1+$\\epsilon$) d(a, b)", ASSISTANT)
    draw_arrow(axes, (12.0, a - 0.41), (12.0, s + 0.41), ASSISTANT, "<|-|>", width=2)
    write_note(axes, 11.0, 2.05, "(1+1/$\\epsilon$) d(b, c)", ASSISTANT)
    draw_arrow(axes, (14.4 - 0.67, 1.95), (12.62, a - 0.1), LABEL, "<|-|>")
    draw_arrow(axes, (14.4 - 0.67, 1.55), (12.62, s + 0.1), LABEL, "<|-|>")
    write_note(axes, 13.75, 2.62, "label loss\nof the assistant", LABEL)
    write_note(axes, 13.75, 0.85, "label loss\nof the student", LABEL)

    write_note(axes, 0.35, t + 0.85, "TEACHER  trained first, then frozen", TEACHER, 10, weight="bold", ha="left")
    write_note(axes, 0.35, a + 0.75, "ASSISTANT  in training only", ASSISTANT, 10, weight="bold", ha="left")
    write_note(axes, 0.35, s - 0.75, "STUDENT  all that ships, unchanged", STUDENT, 10, weight="bold", ha="left")

    axes.set_xlim(0, 15.3)
    axes.set_ylim(-0.2, 5.8)
    axes.axis("off")
    FigureCanvasAgg(figure).print_figure(path, format="png", dpi=110)


if __name__ == "__main__":
    draw(Path(__file__).with_name("flow.png"))
