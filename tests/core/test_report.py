"""A report says of which level its intervals are."""

from sciffusion.report import Metric, Report


def test_the_title_over_the_intervals_is_their_level() -> None:
    figures = {"validity": Metric(0.5, 0.4, 0.6, 10, "valid ones")}
    assert "95 % interval" in str(Report(figures))
    report = Report(figures, level=0.9)
    for shown in (report, Report.from_json(report.to_json())):
        assert "90 % interval" in str(shown) and "95 %" not in str(shown)
        assert "90 % interval" in shown._repr_html_()
