def test_x(cnn_train, small_config):
    import time
    t=time.time()
    a = cnn_train('train', small_config, '--json')
    print(a, time.time()-t)
    t=time.time()
    print(cnn_train('evaluate', 'latest', '--json'), time.time()-t)
