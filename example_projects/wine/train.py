"""Tell three Italian wines apart: a linear model trained in epochs, with curves, a plot and a model to keep."""

import argparse

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_wine
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import ConfusionMatrixDisplay, accuracy_score, f1_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mlcli
import mlcli.sklearn


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--learning-rate", type=float, default=0.02)
    parser.add_argument("--alpha", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    wine = load_wine(as_frame=True)
    X_train, X_test, y_train, y_test = train_test_split(
        wine.data, wine.target, test_size=0.3, random_state=args.seed, stratify=wine.target
    )
    scaler = StandardScaler().fit(X_train)
    model = SGDClassifier(
        loss="log_loss", alpha=args.alpha, learning_rate="constant", eta0=args.learning_rate, random_state=args.seed
    )

    with mlcli.start_run():
        curves = {"train_loss": [], "test_loss": []}
        order = np.random.default_rng(args.seed)
        for epoch in range(args.epochs):
            shuffled = order.permutation(len(X_train))
            model.partial_fit(scaler.transform(X_train)[shuffled], y_train.to_numpy()[shuffled], classes=[0, 1, 2])
            for name, X, y in (("train_loss", X_train, y_train), ("test_loss", X_test, y_test)):
                curves[name].append(log_loss(y, model.predict_proba(scaler.transform(X)), labels=[0, 1, 2]))
                mlcli.log_metric(name, curves[name][-1], step=epoch)

        fitted = make_pipeline(scaler, model)
        predicted = fitted.predict(X_test)
        scores = {
            "accuracy": accuracy_score(y_test, predicted),
            "f1_macro": f1_score(y_test, predicted, average="macro"),
        }
        mlcli.log_metrics(scores)

        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
        for name, values in curves.items():
            left.plot(values, label=name)
        left.set(xlabel="epoch", ylabel="log loss", title="learning curve")
        left.legend()
        ConfusionMatrixDisplay.from_predictions(y_test, predicted, display_labels=wine.target_names, ax=right)
        mlcli.log_figure(figure, "plots/training.png")
        mlcli.log_text("\n".join(wine.feature_names) + "\n", "features.txt")
        mlcli.sklearn.log_model(fitted, "model", input_example=X_test.head(3))
        print(f"accuracy {scores['accuracy']:.3f}, f1 {scores['f1_macro']:.3f} after {args.epochs} epochs")


if __name__ == "__main__":
    main()
