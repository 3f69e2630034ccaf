package vassal

// dockersWords are words of Docker's, for those who come from there: what is written
// here instead.
var dockersWords = map[string]string{
	"ports":       `did you mean "publish"? (publish = 8080:80, one a line)`,
	"port":        `did you mean "publish"? (publish = 8080:80)`,
	"expose":      `nothing is needed for other vassals of the network; for the world it is "publish"`,
	"networks":    `did you mean "network"? (network = NAME, one a line)`,
	"links":       "nothing is needed: vassals of a network find each other by name",
	"volumes":     `did you mean "mount-as-root"? (mount-as-root = none SOURCE TARGET bind, one a line)`,
	"volume":      `did you mean "mount-as-root"? (mount-as-root = none SOURCE TARGET bind)`,
	"restart":     "nothing is needed: an app that ends is started again",
	"environment": `did you mean "env"? (env = NAME=VALUE, one a line)`,
	"image":       `there are no images; write the program: "command"`,
	"entrypoint":  `did you mean "command"?`,
	"user":        `did you mean "uid"?`,
	"working_dir": `did you mean "chdir"?`,
	"healthcheck": `did you mean "health"? (health = http:PORT/PATH)`,
}
