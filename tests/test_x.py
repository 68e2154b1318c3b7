import importlib.util,pathlib
s=importlib.util.spec_from_file_location('tt',pathlib.Path(__file__).with_name('test_train.py')); m=importlib.util.module_from_spec(s); s.loader.exec_module(m)
def test_x(cnn_train, small_config, tmp_path):
    for name,o in m.OPTIONS.items():
        r=[]
        for seed in (1,2,3):
            a = cnn_train('train', small_config, *m.settings(*o), '--set', f'seed={seed}', '--json', cwd=tmp_path)
            r.append((round(a.json['test_accuracy'],2), a.json['epochs']))
        print(name, r)
