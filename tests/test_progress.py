import os, pty, threading, fcntl, termios, struct
def test_x(cnn_train, small_config, tmp_path):
    for cols in (80, 20):
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, cols, 0, 0))
        got = bytearray()
        def read():
            while True:
                try: b = os.read(master, 65536)
                except OSError: break
                if not b: break
                got.extend(b)
        t = threading.Thread(target=read, daemon=True); t.start()
        a = cnn_train('train', small_config, '--set', 'training.epochs=3', '--set', 'model.filters=[64]', cwd=tmp_path, stderr=os.ttyname(slave), env={'TERM':'xterm-256color'})
        os.close(slave)
        t.join(5)
        os.close(master)
        print(a)
        print(repr(got.decode()))
