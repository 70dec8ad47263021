package guard

import "github.com/kidoban/kidoban/detectors"

// client is what the client program shows of itself.
func (v *visit) client() detectors.Client {
	return detectors.Client{JA4: v.peer.Fingerprint, Family: clientWords(v.r)}
}
