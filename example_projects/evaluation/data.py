"""Write the breast cancer data as a csv: thirty measurements of a tumour, and whether it is benign."""

import sys

from sklearn.datasets import load_breast_cancer

if __name__ == "__main__":
    measured, benign = load_breast_cancer(return_X_y=True, as_frame=True)
    measured.columns = [name.replace(" ", "_") for name in measured.columns]
    measured.assign(diagnosis=benign.map({0: "malignant", 1: "benign"})).to_csv(sys.argv[1], index=False)
