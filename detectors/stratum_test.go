package detectors_test

import (
	"math"
	"testing"

	"github.com/kidoban/kidoban/detectors"
)

// Where nobody attacks no bin may be evidence, however busy the day is: not of attempts
// that go each their own way, nor of such that go together. Where somebody does, each must be.
// "Evidence" is the mean of its exponential, which Page's test needs to be 1 or less for
// what it promises about false alarms; mild excesses may be 0.3% above it for a bin of
// attempts that go together, large ones nothing.
func TestEvidenceIsCalibrated(t *testing.T) {
	for _, normal := range []float64{detectors.LeastNormal, 0.05, 0.12, 0.3, 0.6} {
		for _, n := range []int{1, 2, 5, 20, detectors.BinFull} {
			for _, excess := range detectors.Excesses {
				attacked := normal * (1 + excess) / (1 + excess*normal)
				for _, correlation := range []float64{0, detectors.Dispersion} {
					quiet, attack, likelihood := 0.0, 0.0, 0.0
					for f := range n + 1 {
						e := detectors.Evidence(excess, n, f, normal)
						p := failuresOf(n, f, normal, correlation)
						quiet += p * e
						likelihood += p * math.Exp(e)
						attack += failuresOf(n, f, attacked, correlation) * e
					}
					if quiet >= 0 || likelihood > 1.003 || attack <= 0 && correlation == 0 {
						t.Errorf("%d attempts, %.3f normal, excess %.2f, correlation %.2f: %+.4f a bin and likelihood %.4f without an attack, %+.4f in one",
							n, normal, excess, correlation, quiet, likelihood, attack)
					}
				}
			}
		}
	}
}

// failuresOf is how likely f failures of n are: binomial, or beta-binomial with a
// correlation.
func failuresOf(n, f int, share, correlation float64) float64 {
	lg := func(x float64) float64 { v, _ := math.Lgamma(x); return v }
	ways := lg(float64(n+1)) - lg(float64(f+1)) - lg(float64(n-f+1))
	if correlation == 0 {
		return math.Exp(ways + float64(f)*math.Log(share) + float64(n-f)*math.Log(1-share))
	}
	mass := 1/correlation - 1
	a, b := share*mass, (1-share)*mass
	return math.Exp(ways + lg(float64(f)+a) + lg(float64(n-f)+b) - lg(float64(n)+mass) + lg(mass) - lg(a) - lg(b))
}
