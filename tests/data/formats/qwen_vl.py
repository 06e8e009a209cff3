import re

ROOT = "images"
CAMBRIAN_737K = {
    "annotation_path": "llava.json",
    "data_path": "",
}
OCR = {
    "annotation_path": "internvl.jsonl",
    "data_path": f"{ROOT}/",
}

data_dict = {
    "cambrian_737k": CAMBRIAN_737K,
    "ocr": OCR,
}


def parse_sampling_rate(dataset_name):
    match = re.search(r"%(\d+)$", dataset_name)
    return int(match.group(1)) / 100.0 if match else 1.0
