"""Choose a fifth of data of one's own and finetune on it, in Python alone."""

import matplotlib.pyplot as plt
from lightning import Trainer

from coincide_pl import Coincide, InstructionData, LlavaJson, ReferenceModule, TargetModule
from coincide_pl.models import ExportModel
from coincide_pl.reporting.report import report

data = InstructionData(
    train=LlavaJson("mix.json", image_folder="images"),
    signals="signals",  # `predict` writes them here, and the selector reads them
    selector=Coincide(num_clusters=3),
    fraction=0.2,
    selection="selection.safetensors",
)
reference = ReferenceModule("REFERENCE", layers=[3, 7, 11, 15, 19])
Trainer().predict(reference, data, return_predictions=False)

chosen = data.select()
table = chosen.to_pandas()  # a line for each picked sample: its row in the data, its cluster
print(table.head())
table["cluster"].value_counts().plot.bar(ylabel="picked samples")
plt.savefig("clusters.png")
report(chosen)  # report.html, with images and answers

Trainer(max_epochs=1, callbacks=[ExportModel("model")]).fit(TargetModule("TARGET"), data)
