"""Tell benign tumours from malignant ones: a search over a pipeline that says nothing of logging, and is logged all the same."""

import argparse

from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mlcli

mlcli.autolog()  # before the scores are imported, so that they are logged too

from sklearn.metrics import f1_score, roc_auc_score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, random_state=args.seed, stratify=y)

    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        {"logisticregression__C": [0.01, 0.1, 1.0, 10.0]},
        cv=args.folds,
    )
    search.fit(X_train, y_train)

    answers = search.predict(X_test)
    print(f"best: {search.best_params_}, f1 {f1_score(y_test, answers):.3f} on rows it has not seen")
    search.score(X_test, y_test)
    roc_auc_score(y_test, answers)


if __name__ == "__main__":
    main()
