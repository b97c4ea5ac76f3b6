"""Steps from one patient to the next, through the window."""

from session_tools import LIVER, QUICK, block, tiny_backbone, tiny_volume, trained

from napari_diffseg.session import Session


def keep(seed, labels=(LIVER,), train=True):
    with Session(tiny_volume(seed), labels, tiny_backbone()) as session:
        if train:
            trained(session)
        else:
            session.paint.set_slice(1, block())


def ready(window, name):
    window.until(
        lambda: (
            window.workspace is not None
            and window.workspace.volume.name == name
            and window.workspace.session is not None
        )
    )


def anna_trained(window, *slices):
    """Open the first patient of the queue, paint (slice 1 by default) and train."""
    patients = window.panel.patients
    window.click(patients.next_button)
    ready(window, "anna")
    window.session.paint.add_label("liver")
    window.workspace.recolour()
    for z in slices or (1,):
        window.paint_block(z, 1)
    window.train()
    window.idle()
    return patients


def predicted(window):
    window.until(
        lambda: (
            not window.workspace.runner.running
            and not window.workspace.loading
            and bool(window.workspace.predicted.all())
        )
    )


def learn(window, iterations=2):
    patients = window.panel.patients
    window.click(patients.learn_button)
    dialog = patients._learning
    window.until(lambda: bool(dialog.sessions))
    dialog.settings = QUICK.__class__(iterations=iterations, device="cpu")
    return dialog
