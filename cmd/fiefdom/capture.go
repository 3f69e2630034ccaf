package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"fiefdom/tuntap"
)

func captureCommand(t *target) *cobra.Command {
	var file string
	var count, snap int
	var network string
	c := &cobra.Command{
		Use: "capture NAME [PROTO] [host ADDR[/BITS]] [port N]", Short: "Write a vassal's packets, each with its verdict, as pcapng",
		Long: `Capture writes the packets that a vassal sends, and those that come for it, as
pcapng for tcpdump and Wireshark. Each packet has its direction, and as a comment
what the router decided: allow, deny with the rule's file and line, isolate, ….
Large packets that the kernel is still to cut are written as they are. It ends
with ^C, after -c packets, or when the vassal's device is gone.`,
		Example: `  fiefdom capture shop -w shop.pcapng tcp port 443
  fiefdom capture shop host 10.9.0.3 | wireshark -k -i -`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			q, err := parseFilter(args[1:])
			if err == nil && (count < 0 || snap < 0) {
				err = errors.New("-c and -s want a number from 1 on")
			}
			if err != nil {
				return fmt.Errorf("%w: %w", errUsage, err)
			}
			q.Network, q.Snap = network, snap
			client, err := t.client()
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, unix.SIGTERM)
			defer stop()
			if file == "-" && isTerminal(os.Stdout) {
				return fmt.Errorf("%w: a capture is no text; write it to a file by -w FILE, or into a pipe", errUsage)
			}
			body, err := client.Capture(ctx, args[0], writeFilter(q))
			if err != nil {
				return err
			}
			defer body.Close()
			out := cmd.OutOrStdout()
			if file != "-" {
				// Packets are nobody else's business.
				f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
				if err != nil {
					return err
				}
				defer func() { err = errors.Join(err, f.Close()) }()
				out = f
			}
			return copyCapture(ctx, body, out, cmd.ErrOrStderr(), args[0], count)
		},
	}
	c.Flags().StringVarP(&file, "write", "w", "-", "the file to write; - is standard output")
	c.Flags().IntVarP(&count, "count", "c", 0, "end after so many packets")
	c.Flags().IntVarP(&snap, "snaplen", "s", 0, "keep so many bytes of each packet; 0 is all")
	c.Flags().StringVar(&network, "network", "", "the router's device, when the vassal is in several networks")
	return c
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// copyCapture writes a router's records as pcapng, and at the end to say how
// many there were. count is how many are enough; 0: all.
func copyCapture(ctx context.Context, from io.Reader, out, say io.Writer, name string, count int) error {
	in := bufio.NewReaderSize(from, 1<<16)
	w, err := pcapgo.NewNgWriterInterface(out, pcapgo.NgInterface{
		Name: name, OS: "Linux", LinkType: layers.LinkTypeRaw, TimestampResolution: 9,
	}, pcapgo.NgWriterOptions{SectionInfo: pcapgo.NgSectionInfo{Application: "fiefdom " + versionText()}})
	if err != nil {
		return err
	}
	var c tuntap.Captured
	packets, lost := 0, uint64(0)
	for err == nil && (count == 0 || packets < count) {
		if in.Buffered() == 0 {
			if err = w.Flush(); err != nil { // a reader at the end of a pipe sees what came
				break
			}
		}
		if err = tuntap.ReadCapture(in, &c); err != nil {
			break
		}
		if c.Lost > 0 {
			lost = c.Lost
			continue
		}
		packets++
		err = writePacket(w, &c)
	}
	if errors.Is(err, io.EOF) || ctx.Err() != nil {
		err = nil
	}
	err = errors.Join(err, w.Flush())
	fmt.Fprintf(say, "%d packets captured, %d lost\n", packets, lost)
	return err
}

func writePacket(w *pcapgo.NgWriter, c *tuntap.Captured) error {
	flags := &pcapgo.NgEpbFlags{Direction: pcapgo.NgEpbFlagDirectionOutbound}
	if c.Direction.String() == "in" {
		flags.Direction = pcapgo.NgEpbFlagDirectionInbound
	}
	return w.WritePacketWithOptions(
		gopacket.CaptureInfo{Timestamp: c.Time, CaptureLength: len(c.Data), Length: c.Length}, c.Data,
		pcapgo.NgPacketOptions{Comments: []string{c.Verdict}, Flags: flags})
}
