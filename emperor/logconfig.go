package emperor

import (
	"fmt"
	"slices"

	"fiefdom/internal/ini"
	"fiefdom/internal/syslog"
	"fiefdom/vassal"
)

// logOptions are about the emperor's own log, in the words of vassals' logs, and
// about the syslog that is everybody's: where it is, no vassal says, for the
// emperor sends from the host.
var logOptions = slices.Concat(vassal.LogOptions(func(c *Config) *vassal.Logging { return &c.Log }), []ini.Option[Config]{
	{
		Name: "log-syslog-address", Kind: ini.Text, Since: "0.1", Set: func(c *Config, p ini.Pair) error { c.SyslogAddress = p.Value; return nil },
		Meaning: "the syslog of log-syslog, the emperor's and all vassals': a socket's path, udp:HOST:PORT or tcp:HOST:PORT (/dev/log)",
	},
	{
		Name: "log-syslog-format", Kind: ini.Text, Since: "0.1", Set: func(c *Config, p ini.Pair) error { c.SyslogFormat = p.Value; return nil },
		Meaning: "rfc3164 or rfc5424 (rfc3164 for a socket's path, rfc5424 for another machine)",
	},
})

func (c *Config) checkLog() error {
	if err := c.Log.Check(c.LogTo); err != nil {
		return err
	}
	if _, err := c.Syslog(); err != nil {
		return fmt.Errorf("log-syslog-address or log-syslog-format: %w", err)
	}
	return nil
}

// Syslog is where log-syslog sends to.
func (c *Config) Syslog() (syslog.Target, error) {
	return syslog.Parse(c.SyslogAddress, c.SyslogFormat)
}
