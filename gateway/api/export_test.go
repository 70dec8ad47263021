package api

import "strings"

// ProblemTypes are the names of the types of problems.
func ProblemTypes() map[string]bool {
	names := make(map[string]bool)
	for _, t := range []string{typeForbidden, typeRole, typeThrottled, typeNotFound, typeMethod, typeBroken, typeMedia,
		typeTooLarge, typeInvalid, typeConflict, typeKeyReused, typeNoFactors, typeRebind, typeUnavailable, typeInternal} {
		names[t[strings.LastIndex(t, "/")+1:]] = true
	}
	return names
}
